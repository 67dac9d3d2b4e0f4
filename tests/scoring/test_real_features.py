from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gan_ablate.execution.executors.local import MULTIPROCESSING, start_server
from gan_ablate.scoring import scorer as reference
from gan_ablate.scoring.extractors import Features
from gan_ablate.scoring.metrics import NUM_NEIGHBOURS
from gan_ablate.scoring.scorer import load_real_features
from gan_ablate.training.data import ImageDataset, resize


class MeanExtractor:
    """Four features of an image that cost nothing, and a count of the images it has seen."""

    name = "means"
    sha256 = "a" * 64
    num_features = 4

    def __init__(self, *, is_fast: bool = True) -> None:
        self.is_fast = is_fast
        self.num_seen = 0

    def __call__(self, images: Tensor) -> Features:
        self.num_seen += len(images)
        return Features(images.float().flatten(1).unflatten(1, (4, -1)).mean(2), torch.ones(len(images), 10))


def dataset(sha256: str = "d" * 64, size: int = 8) -> ImageDataset:
    stream = torch.Generator().manual_seed(0)
    images, held_out = (torch.randint(0, 256, (num, 1, size, size), generator=stream).byte() for num in (60, 50))
    return ImageDataset("test", images, None, held_out, sha256, "invented")


def test_real_images_are_looked_at_once(tmp_path: Path) -> None:
    extractor = MeanExtractor()
    first = load_real_features(dataset(), extractor, tmp_path / "cache")
    assert extractor.num_seen == 110
    second = load_real_features(dataset(), extractor, tmp_path / "cache")
    assert extractor.num_seen == 110
    assert torch.equal(first.reference, second.reference)
    assert torch.equal(first.manifold.squared_radii, second.manifold.squared_radii)
    assert first.training is not None
    assert second.training is not None
    assert torch.equal(first.training.vectors, second.training.vectors)
    assert first.nearest_held_out == second.nearest_held_out
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".safetensors"]


KEYED = ("data", "resolution", "held out", "name", "weights", "torch", "_LAYOUT", "EXTRACTION_BATCH", "NUM_NEIGHBOURS")


@pytest.mark.parametrize("other", [*KEYED, "NEIGHBOUR_SAMPLES", "NEAREST_SAMPLES"])
def test_what_changes_the_features_changes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    extractor, images = MeanExtractor(), dataset()
    load_real_features(images, extractor, tmp_path)
    match other:
        case "data":
            images = dataset("e" * 64)
        case "resolution":
            images = dataset(size=16)
        case "held out":
            images = dataclasses.replace(images, reference=images.reference[:-1])
        case "name":
            extractor.name = "other means"
        case "weights":
            extractor.sha256 = "b" * 64
        case "torch":
            monkeypatch.setattr(torch, "__version__", "99.0")
        case _:
            monkeypatch.setattr(reference, other, 9)
    load_real_features(images, extractor, tmp_path)
    assert extractor.num_seen > 110
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"half a fi"])
def test_a_file_that_cannot_be_read_is_made_anew(tmp_path: Path, content: bytes) -> None:
    extractor = MeanExtractor()
    first = load_real_features(dataset(), extractor, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert torch.equal(load_real_features(dataset(), extractor, tmp_path).reference, first.reference)
    assert len(file.read_bytes()) > 1_000


def test_a_slow_extractor_is_spared_the_training_set(tmp_path: Path) -> None:
    extractor = MeanExtractor(is_fast=False)
    real = load_real_features(dataset(), extractor, tmp_path)
    assert extractor.num_seen == 50
    assert real.training is None
    assert real.nearest_held_out is None


def test_what_is_kept_of_the_training_images_is_what_the_extractor_said(tmp_path: Path) -> None:
    extractor, data = MeanExtractor(), dataset()
    expected = extractor(data.images)
    for _ in range(2):  # made, then read
        real = load_real_features(data, extractor, tmp_path)
        assert real.training is not None
        assert real.training.logits is not None
        assert expected.logits is not None
        assert torch.equal(real.training.vectors, expected.vectors)
        assert torch.equal(real.training.logits, expected.logits)


def test_an_extractor_without_classes_leaves_none(tmp_path: Path) -> None:
    class Classless(MeanExtractor):
        def __call__(self, images: Tensor) -> Features:
            return Features(super().__call__(images).vectors, None)

    for _ in range(2):
        real = load_real_features(dataset(), Classless(), tmp_path)
        assert real.training is not None
        assert real.training.logits is None


@pytest.mark.parametrize("size", [8, 16])
def test_held_out_images_are_as_far_from_training_ones_as_by_brute_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A random part of them, at the resolution of training: whatever size they came in."""
    monkeypatch.setattr(reference, "NEAREST_SAMPLES", 21)
    stream = torch.Generator().manual_seed(int(hashlib.sha256(b"0/manifold").hexdigest()[:16], 16) >> 1)
    chosen = torch.randperm(50, generator=stream)[:21]
    extractor, data = MeanExtractor(), dataclasses.replace(dataset(), reference=dataset(size=size).reference)
    held_out = extractor(resize(data.reference[chosen], 8)).vectors
    distances = torch.cdist(held_out.double(), extractor(data.images).vectors.double()).min(1).values
    real = load_real_features(data, extractor, tmp_path)
    assert real.nearest_held_out == pytest.approx(distances.median().item(), rel=1e-3)


@pytest.mark.parametrize("place", [0, 600, -40, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, place: int) -> None:
    extractor = MeanExtractor()
    first = load_real_features(dataset(), extractor, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place:][1:])
    assert torch.equal(load_real_features(dataset(), extractor, tmp_path).reference, first.reference)
    assert file.read_bytes() == whole


def test_a_full_disk_leaves_nothing_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", refuse)
    real = load_real_features(dataset(), MeanExtractor(), tmp_path)
    assert real.reference.isfinite().all()
    assert list(tmp_path.iterdir()) == []


def load_in_a_loop(cache: str) -> None:
    """What a worker does, again and again, while others delete the file under it."""
    torch.set_num_threads(1)
    extractor = MeanExtractor()
    expected = extractor(dataset().reference).vectors
    for _ in range(40):
        real = load_real_features(dataset(), extractor, Path(cache))
        assert torch.equal(real.reference, expected)
        for file in Path(cache).glob("*.safetensors"):
            file.unlink(missing_ok=True)


@pytest.mark.slow
def test_workers_that_come_at_once_never_read_half_a_file(tmp_path: Path) -> None:
    start_server()
    workers = [MULTIPROCESSING.Process(target=load_in_a_loop, args=(str(tmp_path),)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def test_the_manifold_is_a_random_part_of_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "NEIGHBOUR_SAMPLES", 20)
    real = load_real_features(dataset(), MeanExtractor(), tmp_path)
    rows = [int((real.reference == vector).all(1).nonzero()[0, 0]) for vector in real.manifold.vectors]
    assert len(set(rows)) == 20
    assert rows != sorted(rows)
    # The same one as for earlier records: from the stream that is called so.
    stream = torch.Generator().manual_seed(int(hashlib.sha256(b"0/manifold").hexdigest()[:16], 16) >> 1)
    assert rows == torch.randperm(50, generator=stream)[:20].tolist()
    squared = torch.cdist(real.manifold.vectors.double(), real.manifold.vectors.double()).square()
    radii = squared.sort(1).values[:, NUM_NEIGHBOURS]
    torch.testing.assert_close(real.manifold.squared_radii.double(), radii, rtol=1e-2, atol=0)
