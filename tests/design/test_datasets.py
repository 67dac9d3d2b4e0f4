from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gan_ablate.design.datasets import (
    KnownFolders,
    count_channels,
    folder_identity,
    list_classes,
    list_images,
    scan_folder,
)
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.design.resolve import plan_run
from gan_ablate.errors import UserError


def test_a_folder_is_named_by_its_content_not_by_its_place(tmp_path: Path) -> None:
    for place in ("here/pets", "there/pets"):
        (tmp_path / place / "cats").mkdir(parents=True)
        (tmp_path / place / "cats" / "a.JPG").write_bytes(b"12345")
    here, there = (folder_identity(tmp_path / place / "pets") for place in ("here", "there"))
    assert here == there
    assert here.startswith("folder:pets@")
    (tmp_path / "there/pets/b.png").write_bytes(b"1")
    assert folder_identity(tmp_path / "there/pets") != here


def test_edited_pictures_are_another_data_set(tmp_path: Path) -> None:
    (tmp_path / "a.bmp").write_bytes(b"12345")
    before = folder_identity(tmp_path)
    (tmp_path / "a.bmp").write_bytes(b"54321")
    assert folder_identity(tmp_path) != before


def test_only_images_are_listed_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpeg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_images(tmp_path)] == ["a.jpeg", "b.png"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image in it; valid: .bmp, .jpe, .jpeg"):
        list_images(tmp_path)


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.jfif", "c.gif", "d.GIF", "e.heic", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "f.png").write_bytes(b"x")
    (tmp_path / "more").symlink_to(elsewhere)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    scan = scan_folder(tmp_path)
    assert [path.name for path in scan.images] == ["a.png", "b.jfif"]
    assert scan.note() == "2 .gif, 1 .heic, 1 links to folders, 1 links to nowhere"


def test_clutter_is_neither_a_class_nor_an_image(tmp_path: Path) -> None:
    """What Jupyter, macOS and Windows leave in folders."""
    clutter = (
        ".ipynb_checkpoints/a-checkpoint.png", "cats/.ipynb_checkpoints/a-checkpoint.png", "cats/._a.png",
        "__MACOSX/cats/._a.png", "__MACOSX/dogs/a.png", ".DS_Store", "cats/Thumbs.db",
    )  # fmt: skip
    for name in ("cats/a.png", "dogs/b.png", *clutter):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(name.encode())
    scan = scan_folder(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in scan.images] == ["cats/a.png", "dogs/b.png"]
    assert list_classes(tmp_path, scan.images) == ["cats", "dogs"]
    assert scan.note() == "3 hidden, 2 in __MACOSX"


def test_a_hidden_folder_may_hold_the_data_set_itself(tmp_path: Path) -> None:
    (tmp_path / ".cache" / "pets").mkdir(parents=True)
    (tmp_path / ".cache" / "pets" / "a.png").write_bytes(b"x")
    assert len(list_images(tmp_path / ".cache" / "pets")) == 1


def test_grey_maps_are_images_and_arrays_are_counted(tmp_path: Path) -> None:
    for name in ("a.pgm", "b.PNM", "c.npz", "d.dcm"):
        (tmp_path / name).write_bytes(b"x")
    scan = scan_folder(tmp_path)
    assert [path.name for path in scan.images] == ["a.pgm", "b.PNM"]
    assert scan.note() == "1 .dcm, 1 .npz"


def test_runs_on_folders_have_new_names_and_no_others_have(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    on_folder = plan(load_grid("beta1"), budget="smoke", dataset=f"folder:{tmp_path}").baseline.config
    assert on_folder.revisions == ("folder_images_in_fixed_order", "folder_resized_bilinearly")
    assert len(on_folder.known_run_ids) == 3
    assert plan(load_grid("beta1"), budget="smoke").baseline.config.revisions == ()


def test_a_folder_is_read_once_as_long_as_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    times = (tmp_path / "a.png").stat()
    before = folder_identity(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", None)
        assert folder_identity(tmp_path) == before
    (tmp_path / "a.png").write_bytes(b"two")  # as long, and as old: an archive that was unpacked over it
    os.utime(tmp_path / "a.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert folder_identity(tmp_path) != before


def test_plan_lists_excluded_images_and_classes(tmp_path: Path) -> None:
    for name in ("cats/a.png", "dogs/b.png", "dogs/c.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    planned = plan(load_grid("conditional"), budget="smoke", dataset=f"folder:{tmp_path}")
    left_out, unscored = planned.notes
    assert left_out == f"folder:{tmp_path}: 2 images; left out: 1 .gif"
    assert "these runs will not be scored" in unscored
    assert "--inception-weights PATH" in unscored
    assert {variant.trained.num_classes for variant in planned.variants} == {None, 2}
    (tmp_path / "stray.png").write_bytes(b"x")
    with pytest.raises(UserError, match="has no classes; valid: a folder"):
        plan(load_grid("conditional"), budget="smoke", dataset=f"folder:{tmp_path}")


def test_a_plan_of_many_variants_lists_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cats/a.png", "dogs/b.png"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True)
        (tmp_path / "pets" / name).write_bytes(name.encode())
    listed: list[Path] = []

    def count(folder: Path, pattern: str) -> Iterator[Path]:
        listed.append(folder)
        return iter(sorted(folder.glob(f"**/{pattern}")))

    monkeypatch.setattr(Path, "rglob", count)
    planned = plan(
        load_grid("batch_size"),
        dataset=f"folder:{tmp_path / 'pets'}",
        overrides=["conditional=true", "scoring.features=none"],
    )
    assert {variant.trained.num_classes for variant in planned.variants} == {2}
    assert len(planned.variants) == 4
    assert listed == [tmp_path / "pets"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no numbers of users")
def test_a_user_without_a_home_plans_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that is started with a number of a user whom its system does not know."""

    def know_nobody(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", know_nobody)
    (tmp_path / "a.png").write_bytes(b"1")
    assert folder_identity(tmp_path).startswith("folder:")


def test_what_is_remembered_of_folders_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(b"1")
    folder_identity(tmp_path / "one")
    memory = tmp_path / "cache-home" / "gan-ablate" / "folders.json"
    before = memory.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    (tmp_path / "one" / "b.png").write_bytes(b"2")
    folder_identity(tmp_path / "one")
    assert memory.read_bytes() == before
    assert [path.name for path in memory.parent.iterdir()] == ["folders.json"]


def test_folder_given_by_a_relative_path_has_classes_and_a_note_on_its_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("Train", "val"):
        for name in ("cat", "dog"):
            place = tmp_path / "pictures" / part / name
            place.mkdir(parents=True)
            (place / "1.png").write_bytes(f"{part} {name}".encode())
    monkeypatch.chdir(tmp_path)
    folders = KnownFolders()

    whole = folders.name("folder:pictures", "--dataset")
    part = folders.name("folder:pictures/Train", "--dataset")

    assert folders.count_classes(part, "grid.toml") == 2
    assert folders.count_classes(whole, "grid.toml") == 2
    (note,) = folders.notes
    assert "folders Train, val in it: all are one data set; valid: folder:pictures/Train for one of them" in note


def test_a_link_to_a_folder_whose_name_is_no_unicode_is_refused_at_planning(tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"ph\xe9")
    place.mkdir()
    (place / "1.png").write_bytes(b"")
    (tmp_path / "link").symlink_to(place)

    with pytest.raises(UserError, match=r"/link: its path '.*ph\\udce9' has a name that is no UTF-8.*renamed"):
        KnownFolders().name(f"folder:{tmp_path}/link", "--dataset")


def test_torchvisions_data_sets_have_their_channels_and_classes() -> None:
    (kmnist,) = plan(load_grid("conditional"), dataset="torchvision:KMNIST", budget="smoke").notes
    assert "torchvision:KMNIST: these runs will not be scored: no classifier of it is shipped" in kmnist
    planned = plan(load_grid("conditional"), dataset="torchvision:CIFAR100", budget="smoke")
    assert {variant.trained.num_classes for variant in planned.variants} == {None, 100}
    assert (count_channels("torchvision:KMNIST"), count_channels("torchvision:SVHN")) == (1, 3)
    assert plan_run("mlp", dataset="torchvision:SVHN", epochs=1).config.steps == 73_257 // 64
    with pytest.raises(UserError, match=r"valid: .*torchvision:KMNIST"):
        plan(load_grid("beta1"), dataset="torchvision:QMNIST")


def write_array(folder: Path, num: int = 40) -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / "images.npy", np.arange(num * 16, dtype=np.uint8).reshape(num, 4, 4))
    np.save(folder / "labels.npy", np.arange(num) % 3)
    return folder / "images.npy"


def test_an_array_is_named_by_its_content_and_has_the_classes_of_its_labels(tmp_path: Path) -> None:
    path, copy = write_array(tmp_path / "a"), write_array(tmp_path / "b")
    folders = KnownFolders()
    name = folders.name(f"array:{path}", "--dataset")
    assert re.fullmatch(r"array:images\.npy@[0-9a-f]{8},grey", name)
    assert folders.name(f"array:{path}", "--dataset") == name == KnownFolders().name(f"array:{copy}", "--dataset")
    assert folders.notes == [f"array:{path}: 40 images of 3 classes, by labels.npy"]
    assert (folders.count_images(name), folders.count_classes(name, "test"), count_channels(name)) == (34, 3, 1)
    np.save(copy.with_name("labels.npy"), np.arange(40) % 4)
    assert KnownFolders().name(f"array:{copy}", "--dataset") != name
    planned = plan(load_grid("conditional"), dataset=f"array:{path}", budget="smoke")
    assert {variant.trained.num_classes for variant in planned.variants} == {None, 3}
    assert planned.blocks[0].name == f"conditional@{name.removeprefix('array:').replace('@', '-').replace(',', '-')}"
    assert planned.folders == {name: str(path)}


def test_an_npz_holds_images_and_labels(tmp_path: Path) -> None:
    images = np.zeros((36, 3, 8, 8), np.uint8)
    np.savez_compressed(tmp_path / "both.npz", images=images, labels=np.arange(36, dtype=np.uint8) % 5)
    np.savez(tmp_path / "images.npz", images=images.transpose(0, 2, 3, 1))
    folders = KnownFolders()
    both, alone = (folders.name(f"array:{tmp_path / name}", "") for name in ("both.npz", "images.npz"))
    assert (count_channels(both), folders.count_classes(both, "")) == (3, 5)
    with pytest.raises(UserError, match=r"conditional = true: array:.*images\.npz has no labels; valid: labels\.npy"):
        folders.count_classes(alone, "test")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((9, 4, 4)), r"\(9, 4, 4\) of <f8; valid: uint8, \(N, S, S\), \(N, S, S, 1 or 3\) or"),
        (np.zeros((9, 4, 5), np.uint8), r"\(9, 4, 5\) of \|u1; valid: uint8"),
        (np.zeros((9, 4, 4, 2), np.uint8), r"valid: uint8"),
        (np.zeros((4, 4), np.uint8), r"valid: uint8"),
        (np.asfortranarray(np.zeros((9, 4, 4), np.uint8)), "in Fortran order; valid: np.ascontiguousarray"),
        (b"nothing", r"no NumPy array\); valid: an .npy of images, or an .npz with images and, for classes, labels"),
        (b"\x93NUMPY\x01\x00", "cannot be read"),
        (None, "No such file"),
    ],
)
def test_an_array_of_no_images_is_one_line(tmp_path: Path, array: Any, message: str) -> None:
    path = tmp_path / "images.npy"
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif array is not None:
        np.save(path, array)
    with pytest.raises(UserError, match=rf"array:.*images\.npy: .*{message}"):
        KnownFolders().name(f"array:{path}", "--dataset")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(39), r"labels are \(39,\) of <i8; valid: \(40,\) whole numbers from 0"),
        (np.arange(40) / 2, r"labels are \(40,\) of <f8"),
        (np.arange(40) - 1, "labels from -1 to 38; valid: from 0 to 999"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(tmp_path: Path, labels: Any, message: str) -> None:
    path = write_array(tmp_path / "a")
    np.save(path.with_name("labels.npy"), labels)
    with pytest.raises(UserError, match=message):
        KnownFolders().name(f"array:{path}", "--dataset")


def test_held_out_images_of_another_folder_are_part_of_the_run(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        for i in range(8 if name == "train" else 7):
            (tmp_path / name / f"{i}.png").write_bytes(f"{name}{i}".encode())
    dataset, holdout = (f"folder:{tmp_path / name}" for name in ("train", "test"))
    planned = plan(load_grid("beta1"), dataset=dataset, holdout=holdout, features="inception")
    config = planned.baseline.trained
    assert planned.folders == {config.dataset: str(tmp_path / "train"), config.holdout: str(tmp_path / "test")}
    assert config.run_id != plan(load_grid("beta1"), dataset=dataset).baseline.trained.run_id
    assert f"{holdout}: 7 images, of which 7 are held out" in planned.notes[-1]
    overrides = [f"holdout={holdout}"]
    assert plan_run("mlp", dataset=dataset, epochs=8, overrides=[*overrides, "batch_size=8"]).config.steps == 8
    with pytest.raises(UserError, match=r"holdout = 'folder:test@.*': mnist-10k has held-out images of its own"):
        plan(load_grid("beta1"), holdout=holdout)
    with pytest.raises(UserError, match=r"holdout folder:.*none: no such folder"):
        plan(load_grid("beta1"), dataset=dataset, holdout=f"folder:{tmp_path}/none")
    array = write_array(tmp_path / "a")
    with pytest.raises(UserError, match="one is grey, and the other in colour; valid: both of one kind"):
        plan(load_grid("beta1"), dataset=dataset, holdout=f"array:{array}")
