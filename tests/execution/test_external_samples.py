"""Samples of external runs: which images are scored, which are refused, and which files stay."""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torchvision.utils import save_image

from gan_ablate.design.external import ExternalConfig
from gan_ablate.execution import external_samples as samples_module
from gan_ablate.execution.external_samples import (
    Samples,
    describe_class,
    find_samples,
    load_samples,
    pack_samples,
    remove_files,
    sample_generator,
)
from gan_ablate.execution.script import ScriptError
from gan_ablate.scoring.image_sets import order_by_content
from gan_ablate.scoring.scorer import NonFiniteImagesError, quantise
from gan_ablate.seeding import SCORING_SEED, stream_seed

NUM = 40


def make_config(samples: str, num: int = NUM, **fields: Any) -> ExternalConfig:
    scoring = {"features": "none", "num_samples": num}
    content = {"command": ["x"], "samples": samples, "code": "x@0", "seed": 3, "scoring": scoring, "image_size": 4}
    return ExternalConfig.model_validate({**content, **fields})


def images_of_classes(num: int) -> NDArray[np.uint8]:
    """So many images of each of ten classes, which their first pixel tells."""
    images = np.random.default_rng(0).integers(0, 256, (10 * num, 4, 4), np.uint8)
    images[:, 0, 0] = np.arange(10 * num) // num
    return images


def save_images(folder: Path, names: Iterable[str], images: NDArray[np.uint8]) -> None:
    for name, image in zip(names, images, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def load(config: ExternalConfig, folder: Path) -> Samples:
    return load_samples(config, folder, find_samples(config, folder))


def test_class_folders_are_sampled_evenly_and_said(tmp_path: Path) -> None:
    images = images_of_classes(20)
    save_images(tmp_path, (f"class_{i // 20}/{i % 20:04d}.png" for i in range(200)), images)
    samples = load(make_config("**/*.png", 100), tmp_path)
    counts = np.bincount(samples.images[:, 0, 0, 0].numpy(), minlength=10)
    assert counts.sum() == 100
    assert counts.min() >= 4  # the first 100 by name would be of five classes
    assert samples.notes == (
        "100 of 200 images scored",
        "images of 10 folders, class_0 to class_9, scored together",
    )
    assert torch.equal(samples.images, load(make_config("**/*.png", 100), tmp_path).images)


def test_an_array_sorted_by_class_and_a_shuffled_one_are_scored_alike(tmp_path: Path) -> None:
    images = images_of_classes(4)
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "b.npy", images[np.random.default_rng(1).permutation(NUM)])
    first, second = (load(make_config(name), tmp_path) for name in ("a.npy", "b.npy"))
    assert torch.equal(first.images, second.images)
    assert first.notes == ()
    assert torch.equal(first.images, order_by_content(torch.from_numpy(images)[:, None]))


def test_names_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 1, 100):
        (tmp_path / f"{number}.png").touch()
    assert [path.stem for path in find_samples(make_config("*.png"), tmp_path)] == ["1", "9", "10", "100"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            [f"epoch_{e:03d}/{i}.png" for e in range(1, 21) for i in range(3)],
            "images of 20 epochs or steps, epoch_001 to epoch_020; valid: those of one, such as epoch_020/*.png",
        ),
        ([f"s/step_{e}/{i}.png" for e in (500, 1000) for i in range(3)], "step_500 to step_1000; .* s/step_1000/*.png"),
        ([f"{e}/{i}.png" for e in (1000, 2000, 3000) for i in range(3)], "1000 to 3000; valid: .* such as 3000/*.png"),
        ([f"e{e}/fake/{i}.png" for e in (0, 9) for i in range(3)], "e0 to e9; .* such as e9/.*/*.png"),
        ([f"fake_epoch_{e}_{i}.png" for e in (1, 2) for i in range(3)], r"epoch_1 to epoch_2; .* fake_epoch_2*.png"),
        ([f"img_{i}_epoch{e}.png" for e in (1, 2) for i in range(3)], "epoch1 to epoch2; .* img_0_epoch2*.png"),
        ([f"fakes{e:06d}_{i}.png" for e in (5000, 10000) for i in range(3)], "fakes005000 to fakes010000"),
    ],
)  # fmt: skip
def test_images_of_several_epochs_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ScriptError, match=message.replace("*.png", r"\*.png")) as wrong:
        find_samples(make_config("**/*.png"), tmp_path)
    assert str(wrong.value).startswith("external.samples = **/*.png: it matches")


@pytest.mark.parametrize(
    "names",
    [
        [f"{c}/{i:04d}.png" for c in range(10) for i in range(3)],
        [f"class_{c}/img_{i * 100}.png" for c in range(10) for i in range(3)],
        [f"digit{c}_{i}.png" for c in range(10) for i in range(3)],
        [f"part-{c}/{i}.png" for c in range(4) for i in range(3)],
        [f"step_{i}.png" for i in range(0, 1000, 100)],
        [f"epoch_020/{i}.png" for i in range(9)],
        [f"64x64_{i}.png" for i in range(9)],
        [f"{i - i % 1000:06d}/{i:06d}.png" for i in range(0, 3000, 100)],
    ],
)
def test_classes_and_numbered_images_are_no_epochs(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert len(find_samples(make_config("**/*.png"), tmp_path)) == len(names)


@pytest.mark.parametrize(("pattern", "fields"), [("G_*.pt", {"latent_shape": [8]}), ("G_*.npy", {})])
def test_of_several_generators_or_arrays_none_is_taken(tmp_path: Path, pattern: str, fields: dict[str, Any]) -> None:
    names = [pattern.replace("*", number) for number in ("2", "10", "1")]
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ScriptError, match=rf"it matches 3 files, {names[2]} to {names[1]}; valid: one of them, such"):
        find_samples(make_config(pattern, **fields), tmp_path)


def test_links_to_what_lies_beside_the_grid_are_no_samples(tmp_path: Path) -> None:
    save_images(tmp_path / "beside", ["x.png"], images_of_classes(1)[:1])
    work = tmp_path / "work"
    save_images(work / "out", ["y.png"], images_of_classes(1)[:1])
    (work / "data").symlink_to(tmp_path / "beside")
    found = find_samples(make_config("*/*.png"), work, ["data"])
    assert [path.relative_to(work).as_posix() for path in found] == ["out/y.png"]


def test_samples_behind_a_nested_link_are_no_samples_and_stay(tmp_path: Path) -> None:
    save_images(tmp_path / "beside" / "c", ["x.png"], images_of_classes(1)[:1])
    work = tmp_path / "work"
    save_images(work / "data" / "gen" / "c", ["y.png"], images_of_classes(1)[:1])
    (work / "data" / "train").symlink_to(tmp_path / "beside")
    found = find_samples(make_config("*/*/*/*.png"), work, ["data/train"])
    assert [path.relative_to(work).as_posix() for path in found] == ["data/gen/c/y.png"]


@pytest.mark.parametrize("pattern", ["out/*.png", "s.npy"])
def test_samples_that_lead_out_of_the_run_are_refused_and_stay(tmp_path: Path, pattern: str) -> None:
    outside, work = tmp_path / "precious", tmp_path / "work"
    save_images(outside, ["x.png"], images_of_classes(1)[:1])
    np.save(outside / "s.npy", images_of_classes(1))
    work.mkdir()
    (work / "out").symlink_to(outside)
    (work / "s.npy").symlink_to(outside / "s.npy")
    with pytest.raises(ScriptError, match=r"leads out of \{out\}, to .*precious.*; valid: files that lie below"):
        find_samples(make_config(pattern), work)
    assert len(list(outside.iterdir())) == 2


def test_a_run_folder_that_became_a_link_is_refused(tmp_path: Path) -> None:
    save_images(tmp_path / "precious", ["x.png"], images_of_classes(1)[:1])
    (tmp_path / "work").symlink_to(tmp_path / "precious")
    with pytest.raises(ScriptError, match=r"leads out of \{out\}"):
        find_samples(make_config("*.png"), tmp_path / "work")


def test_a_link_to_another_sample_is_no_sample(tmp_path: Path) -> None:
    save_images(tmp_path, ["1.png", "2.png"], images_of_classes(1)[:2])
    (tmp_path / "latest.png").symlink_to(tmp_path / "2.png")
    assert [path.name for path in find_samples(make_config("*.png"), tmp_path)] == ["1.png", "2.png"]


def test_what_was_left_instead_of_samples_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match=r"left no s.npy in .*; it left no file there$"):
        find_samples(make_config("s.npy"), tmp_path)
    for name in ("x/s.npy", "a.txt", "b10.txt", "b9.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ScriptError, match=r"; it left a.txt, b9.txt, b10.txt, …$"):
        find_samples(make_config("s.npy"), tmp_path)


def test_odd_values_of_an_array_are_noted(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 2, (NUM, 4, 4), np.uint8)  # from 0 to 1, saved as uint8
    np.savez(tmp_path / "s.npz", images=images, other=images)
    notes = load(make_config("s.npz"), tmp_path).notes
    assert any("left out: other" in note for note in notes)
    assert any("s.npz" not in note and "1" in note for note in notes)
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.02, 0.98, "none below 0"),
        (0.0, 255.0, "none below 0"),
        (-127.0, 127.0, "cut off"),
        (-1.2, 1.3, ""),
        (0, 0, ""),
    ],
)
def test_pixels_of_another_range_are_noted(low: float, high: float, words: str) -> None:
    notes = samples_module._describe_pixels(low, high)
    assert [words in note for note in notes] == ([True] if words else [])


def test_what_was_scored_is_kept_in_one_file(tmp_path: Path) -> None:
    work = tmp_path / "work"
    save_images(work, (f"out/{i}.png" for i in range(NUM)), images_of_classes(4))
    (work / "log.txt").write_text("kept")
    config = make_config("out/*.png")
    found = find_samples(config, work)
    samples = load_samples(config, work, found)
    pack_samples(samples, tmp_path / "samples.npz")
    remove_files(found, work)
    assert [path.name for path in work.rglob("*")] == ["log.txt"]
    with np.load(tmp_path / "samples.npz") as kept:
        assert np.array_equal(kept["images"], samples.images.numpy())


def export(path: Path) -> nn.Module:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4))).eval()
    size = torch.export.Dim("batch", min=2, max=4096)
    program = torch.export.export(generator, (torch.zeros(4, 8),), dynamic_shapes=({0: size},))
    torch.export.save(program, path)
    return generator


def rewrite(source: Path, target: Path, member: str, old: bytes, new: bytes | None = None) -> None:
    """Copy an archive with other content in one of its members, or another text in it."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if member in name:
                assert new is None or old in content
                content = old if new is None else content.replace(old, new)
            copy.writestr(name, content)


def sample(path: Path, folder: Path, **fields: Any) -> torch.Tensor:
    config = make_config(path.name, latent_shape=[8], **fields)
    return sample_generator(config, path, folder, "cpu", lambda: False).images


def test_an_exported_generator_is_sampled_with_the_latents_of_every_run(tmp_path: Path) -> None:
    generator = export(tmp_path / "g.pt2")
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "latent"))
    with torch.inference_mode():
        expected = quantise(generator(torch.randn(NUM, 8, generator=stream)))
    assert torch.equal(sample(tmp_path / "g.pt2", tmp_path), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["g.pt2"]


class Malicious:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "expression"])
def test_an_archive_that_runs_code_is_refused(tmp_path: Path, kind: str) -> None:
    """Both write a file when ``torch.export.load`` reads them; the second is what SymPy evaluates."""
    export(tmp_path / "g.pt2")
    trace, bad = tmp_path / "trace", tmp_path / "bad.pt2"
    if kind == "pickle":
        buffer = io.BytesIO()
        torch.save(((Malicious(trace),), {}), buffer)
        rewrite(tmp_path / "g.pt2", bad, "sample_inputs", buffer.getvalue())
        message = "bad.pt2: the saved generator cannot be sampled .it holds a pickle of more than tensors"
    else:
        code = f"__import__('os').system({f'touch {trace}'!r}) and 0 or Symbol("
        old, new = (json.dumps(text)[:-1].encode() for text in ("Symbol(", code))
        rewrite(tmp_path / "g.pt2", bad, "model.json", b'"expr_str": ' + old, b'"expr_str": ' + new)
        message = "bad.pt2: the saved generator cannot be sampled .it would run code when it is loaded: os.system"
    with pytest.raises(ScriptError, match=message):
        sample(bad, tmp_path)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*TorchScript")  # it is on its way out
def test_pixels_that_are_no_numbers_are_a_divergence_and_a_pickle_no_generator(tmp_path: Path) -> None:
    generator = nn.Sequential(nn.Linear(8, 16), nn.Unflatten(1, (1, 4, 4))).eval()
    torch.save(generator.state_dict(), tmp_path / "s.pt")
    with pytest.raises(ScriptError, match=r"s.pt: .*no TorchScript; valid: torch.jit.trace\(netG, z\).save"):
        sample(tmp_path / "s.pt", tmp_path)
    generator.get_parameter("0.bias").data.fill_(float("nan"))
    torch.jit.trace(generator, torch.zeros(4, 8)).save(str(tmp_path / "g.pt"))
    with pytest.raises(NonFiniteImagesError):
        sample(tmp_path / "g.pt", tmp_path)


def test_sampling_ends_with_its_time(tmp_path: Path) -> None:
    (tmp_path / "g.pt").touch()
    with pytest.raises(ScriptError, match=r"sampling the saved generator had not ended after 0.05 s \(external.time"):
        sample(tmp_path / "g.pt", tmp_path, timeout_sec=0.05)
    assert [path.name for path in tmp_path.iterdir()] == ["g.pt"]


def save_grid(path: Path, images: NDArray[np.uint8], columns: int, padding: int) -> None:
    """Write samples side by side, as ``save_image`` of torchvision does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = torch.from_numpy(images)[:, None].float() / 255
    save_image(samples, path, nrow=columns, padding=padding)


def test_pictures_of_many_samples_are_cut_and_the_note_says_what_that_costs(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 4), np.uint8)
    for number in range(5):  # 5 of them, at steps 0, 400, …
        save_grid(tmp_path / f"images/{400 * number}.png", images[number], columns=3, padding=1)
    grid = {"rows": 2, "columns": 3, "padding": 1}
    last = load(make_config("images/*.png", 6, samples_grid=grid), tmp_path)
    assert torch.equal(last.images, order_by_content(torch.from_numpy(images[4])[:, None]))
    (note,) = last.notes
    assert note.startswith("6 samples cut from the last picture, images/1600.png: few samples make FID high and")
    assert "save_image(normalize=True) stretches each picture's contrast" in note
    two = load(make_config("images/*.png", 12, samples_grid={**grid, "pictures": 2}), tmp_path)
    assert torch.equal(two.images, order_by_content(torch.from_numpy(images[3:].reshape(12, 1, 4, 4))))
    assert "12 samples cut from the last 2 pictures, images/1600.png" in two.notes[0]
    with pytest.raises(ScriptError, match=r"left 6 images in images/\*.png; valid: scoring.num_samples, 7, or more"):
        load(make_config("images/*.png", 7, samples_grid=grid), tmp_path)


def test_a_picture_of_another_size_than_the_grid_says_is_refused(tmp_path: Path) -> None:
    save_grid(tmp_path / "1.png", images_of_classes(1)[:6], columns=3, padding=1)
    with pytest.raises(ScriptError, match=r"^1.png: 16×11 pixels; valid: 14×14, for .*: 2 × 2 samples of 4×4 pix"):
        load(make_config("*.png", 4, samples_grid={"rows": 2}), tmp_path)


@pytest.mark.parametrize(
    ("columns", "padding", "cells"),
    [(3, 2, "rows = 2, columns = 3, padding = 2"), (6, 0, "rows = 1, columns = 6, padding = 0")],
)
def test_a_picture_of_many_samples_is_not_taken_for_an_image(
    tmp_path: Path, columns: int, padding: int, cells: str
) -> None:
    for number in range(4):
        save_grid(tmp_path / f"{number}.png", images_of_classes(1)[:6], columns, padding)
    with pytest.raises(ScriptError) as wrong:
        load(make_config("*.png", 4), tmp_path)
    advice = f"or, if a picture holds many samples, external.samples_grid = {{ {cells} }}"
    assert str(wrong.value).endswith(f" pixels; valid: 4×4, {advice}")


def test_a_picture_that_may_be_a_larger_image_names_the_size_too(tmp_path: Path) -> None:
    save_images(tmp_path, ["1.png"], np.zeros((1, 64, 64), np.uint8))
    with pytest.raises(ScriptError, match="64×64 pixels; valid: 4×4, or image_size = 64, or, if a picture holds many"):
        load(make_config("*.png", 2), tmp_path)


def test_of_checkpoints_the_last_one_is_sampled(tmp_path: Path) -> None:
    for number in (9, 10, 1):
        (tmp_path / f"netG_epoch_{number}.pth").touch()
    checkpoint = {"checkpoint": "netG_epoch_*.pth", "module": "main:Generator"}
    config = make_config("netG_epoch_*.pth", latent_shape=[8], checkpoint=checkpoint)
    assert [path.name for path in find_samples(config, tmp_path)] == ["netG_epoch_10.pth"]


NET = """
import argparse, sys, torch
parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int)
opt = parser.parse_args()
class Generator(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.layer = torch.nn.Linear(8, opt.width)
        self.scale = scale
    def forward(self, z):
        return self.scale * self.layer(z).view(-1, 1, 4, 4)
print("training")
open("trained", "w")
"""


def sample_checkpoint(folder: Path, script: str = NET, **fields: Any) -> torch.Tensor:
    """Sample the weights in ``g.pth`` with a class of ``main.py``, whose command names a width of 16."""
    (folder / "main.py").write_text(script)
    checkpoint = {"checkpoint": "g.pth", "module": "main:Generator", "arguments": {"scale": "{scale}"}, **fields}
    config = make_config("g.pth", latent_shape=[8], checkpoint=checkpoint, latent_distribution="uniform")
    code = describe_class(config, folder, [str(folder / "main.py"), "--width", "16"], {"scale": "0.5"})
    return sample_generator(config, folder / "g.pth", folder, "cpu", lambda: False, code).images


@pytest.mark.slow
def test_a_checkpoint_is_sampled_with_the_class_of_a_script_that_is_not_run(tmp_path: Path) -> None:
    layer = nn.Linear(8, 16)
    torch.save(
        {
            "epoch": 3,
            "opt": argparse.Namespace(lr=1),
            "netG": {f"module.layer.{name}": x for name, x in layer.state_dict().items()},
        },
        tmp_path / "g.pth",
    )
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "latent"))
    with torch.inference_mode():
        expected = quantise(0.5 * layer(torch.rand(NUM, 8, generator=stream) * 2 - 1).view(-1, 1, 4, 4))
    assert torch.equal(sample_checkpoint(tmp_path), expected)
    assert not (tmp_path / "trained").exists()


@pytest.mark.slow
def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"netG": Malicious(tmp_path / "trace")}, tmp_path / "g.pth")
    message = r"g.pth: the checkpoint cannot be sampled \(it holds more than tensors; valid: torch.save"
    with pytest.raises(ScriptError, match=message):
        sample_checkpoint(tmp_path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.slow
def test_a_class_that_needs_more_than_is_run_is_refused_with_what_is_valid(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "g.pth")
    script = NET.replace("opt.width", "width") + "for width in (16,): pass\n"
    message = r"main.py: Generator: NameError: name 'width' is not defined; only what the class names is run"
    with pytest.raises(ScriptError, match=message):
        sample_checkpoint(tmp_path, script)
