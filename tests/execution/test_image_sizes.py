from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_ablate.design.resolve import SingleRun, plan_run
from gan_ablate.execution import image_sizes
from gan_ablate.execution.image_sizes import describe_sizes


def save(folder: Path, *sizes: tuple[int, int], turned: bool = False) -> Path:
    """Save pictures of some widths and heights."""
    folder.mkdir()
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6  # to be turned by a quarter
    for i, size in enumerate(sizes):
        Image.new("RGB", size, (i, i, i)).save(folder / f"{i}.jpg", exif=exif)
    return folder


def describe(single: SingleRun, *, is_brief: bool = False) -> str:
    return "; ".join(describe_sizes([single.config, single.config], single.folders, is_brief=is_brief))


CROP = "folder:faces: images {} → 28×28, centre crop: it cuts off {}; --set fit=pad keeps all of it"


@pytest.mark.parametrize("is_brief", [True, False])
@pytest.mark.parametrize(
    ("sizes", "overrides", "words"),
    [
        ([(178, 218)] * 36, [], CROP.format("178×218", "18 % of each")),
        ([(178, 218)] * 36, ["fit=pad"], "folder:faces: images 178×218 → 28×28, padded with black: 18 % of each"),
        ([(40, 40), (40, 80)] * 18, [], CROP.format("40×40…80", "25 % of them on average, 50 % at most")),
        (
            [(32, 32)] * 36,
            [],
            "folder:faces: images 32×32 → 28×28, resized; --set image_size=32 keeps them as they are",
        ),
    ],
)
def test_what_becomes_of_the_pictures_of_a_folder_is_said(
    tmp_path: Path, sizes: list[tuple[int, int]], overrides: list[str], words: str, *, is_brief: bool
) -> None:
    folder = save(tmp_path / "faces", *sizes)
    single = plan_run("dcgan-28", dataset=f"folder:{folder}", overrides=overrides)
    assert describe(single, is_brief=is_brief) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (28, "folder:faces: images 28×28"),
        (30, "folder:faces: images 30×30 → 28×28, resized"),  # no DCGAN has 30 pixels
        (24, "folder:faces: images 24×24 → 28×28, enlarged"),
        (512, "folder:faces: images 512×512 → 28×28, resized"),
    ],
)
def test_squares_that_lose_no_part_are_described_in_full_alone(tmp_path: Path, size: int, words: str) -> None:
    single = plan_run("dcgan-28", dataset=f"folder:{save(tmp_path / 'faces', *[(size, size)] * 36)}")
    assert describe(single) == words
    assert describe(single, is_brief=True) == ""


def test_sizes_are_those_of_pictures_turned_upright(tmp_path: Path) -> None:
    folder = save(tmp_path / "faces", *[(60, 40)] * 36, turned=True)
    assert describe(plan_run("mlp", dataset=f"folder:{folder}")).startswith("folder:faces: images 40×60 → 28×28")


def test_of_many_pictures_some_are_looked_at_and_damaged_ones_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_sizes, "MAX_PICTURES", 6)
    folder = save(tmp_path / "faces", *[(28, 28)] * 36)
    (folder / "0.jpg").write_bytes(b"no picture")
    assert describe(plan_run("mlp", dataset=f"folder:{folder}")) == "folder:faces: images 28×28"


def test_shipped_data_sets_and_arrays_have_their_sizes(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((36, 20, 20), np.uint8))
    assert describe(plan_run("mlp")) == "mnist-10k: images 28×28"
    assert describe(plan_run("dcgan-64", dataset="mnist")) == "mnist: images 28×28 → 64×64, enlarged"
    array = plan_run("mlp", dataset=f"array:{tmp_path / 'images.npy'}")
    assert (
        describe(array)
        == "array:images.npy: images 20×20 → 28×28, enlarged; --set image_size=20 keeps them as they are"
    )
