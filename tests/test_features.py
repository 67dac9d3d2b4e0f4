from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from gan_ablate.assets import read_asset
from gan_ablate.data import load_dataset
from gan_ablate.errors import UserError
from gan_ablate.features import ClassifierExtractor, InceptionExtractor, build_extractor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> ClassifierExtractor:
    return ClassifierExtractor("digits", CPU)


def accuracy(extractor: ClassifierExtractor, images: torch.Tensor, labels: torch.Tensor) -> float:
    logits = extractor(images).logits
    assert logits is not None
    return (logits.argmax(1) == labels).float().mean().item()


def test_the_digit_classifier_is_right_on_993_of_1000_test_digits(digits: ClassifierExtractor) -> None:
    with np.load(str(resources.files("gan_ablate.assets").joinpath("mnist-10k-test.npz"))) as test:
        images, labels = torch.from_numpy(test["images"]).unsqueeze(1), torch.from_numpy(test["labels"])
    assert accuracy(digits, images, labels) >= 0.993


def test_the_fashion_classifier_is_right_on_92_of_100_test_garments(shared_data: Path) -> None:
    from torchvision.datasets import FashionMNIST

    test = FashionMNIST(shared_data, train=False)
    assert accuracy(ClassifierExtractor("fashion", CPU), test.data.unsqueeze(1), test.targets) >= 0.92


def test_real_features_have_unit_mean_variance(digits: ClassifierExtractor) -> None:
    vectors = digits(load_dataset("mnist-10k", 28, Path()).reference).vectors
    assert vectors.shape == (10_000, 64)
    assert vectors.double().var(0).mean().item() == pytest.approx(1, abs=1e-4)


def test_the_weights_are_small() -> None:
    files = [f for f in resources.files("gan_ablate.assets").iterdir() if f.name.endswith(".safetensors")]
    assert len(files) == 2
    assert sum(len(file.read_bytes()) for file in files) < 2_000_000


def test_weights_that_were_tampered_with_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content, _ = read_asset("digits.safetensors")
    (tmp_path / "digits.safetensors").write_bytes(content[:-1] + b"\x00")
    sums = resources.files("gan_ablate.assets").joinpath("SHA256SUMS").read_text("ascii")
    (tmp_path / "SHA256SUMS").write_text(sums, "ascii")
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    with pytest.raises(UserError, match=r"digits\.safetensors: the checksum"):
        read_asset("digits.safetensors")


def test_other_sizes_are_resized_before_they_are_judged(digits: ClassifierExtractor) -> None:
    reference = load_dataset("mnist-10k", 28, Path()).reference[:500]
    enlarged = reference.repeat_interleave(2, 2).repeat_interleave(2, 3)
    same = (digits(enlarged).logits.argmax(1) == digits(reference).logits.argmax(1)).float().mean()  # type: ignore[union-attr]
    assert same >= 0.99


def test_only_saved_pixels_are_judged(digits: ClassifierExtractor) -> None:
    with pytest.raises(TypeError, match="uint8"):
        digits(torch.zeros(1, 1, 28, 28))


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the published layout, with weights of our own."""
    torch.manual_seed(0)
    network = FeatureExtractorInceptionV3.__new__(FeatureExtractorInceptionV3)
    with pytest.raises(FileNotFoundError):  # by then the layers are there; only the weights are not
        network.__init__("x", ["2048"], feature_extractor_weights_path="/nowhere")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def test_inception_loads_a_file_of_the_published_layout(inception_file: Path) -> None:
    extractor = build_extractor("inception", CPU, inception_file)
    grey, colour = (torch.randint(0, 256, (2, channels, 32, 32)).byte() for channels in (1, 3))
    for images in (grey, colour):
        found = extractor(images)
        assert found.vectors.shape == (2, 2048)
        assert found.vectors.isfinite().all()
        assert found.logits is None


def test_inception_says_what_is_wrong_with_its_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pth: no such file"):
        InceptionExtractor(tmp_path / "absent.pth", CPU)
    (tmp_path / "other.pth").write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"other\.pth: not the Inception-v3"):
        InceptionExtractor(tmp_path / "other.pth", CPU)
