from __future__ import annotations

import hashlib
import pathlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from gan_ablate.assets import read_asset
from gan_ablate.errors import UserError
from gan_ablate.scoring import features
from gan_ablate.scoring.features import ClassifierExtractor, InceptionExtractor
from gan_ablate.scoring.metrics import frechet_distance, kernel_distance
from gan_ablate.training.data import load_dataset

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


def test_reduced_precision_is_kept_out_whatever_the_caller_set(
    digits: ClassifierExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, ...]] = []

    def look(batch: torch.Tensor) -> tuple[torch.Tensor, None]:
        backends = torch.backends
        flags = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, torch.is_autocast_enabled("cpu")
        seen.append((*flags, backends.cudnn.enabled))
        return batch.float().flatten(1), None

    monkeypatch.setattr(digits, "_forward", look)
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    matmul.allow_tf32 = True
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
            digits(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
        assert matmul.allow_tf32
    finally:
        matmul.allow_tf32 = before
    assert seen == [(False, False, False, True)]


def test_a_batch_is_judged_as_its_images_are_alone(digits: ClassifierExtractor) -> None:
    """In eval mode: with batch statistics, an image's features would depend on its neighbours."""
    images = load_dataset("mnist-10k", 28, Path()).reference[:20]
    alone = torch.cat([digits(image[None]).vectors for image in images])
    torch.testing.assert_close(digits(images).vectors, alone, rtol=1e-4, atol=1e-4)


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


def test_inception_loads_a_file_of_the_published_layout(inception: InceptionExtractor) -> None:
    extractor = inception
    grey, colour = (torch.randint(0, 256, (2, channels, 32, 32)).byte() for channels in (1, 3))
    for images in (grey, colour):
        found = extractor(images)
        assert found.vectors.shape == (2, 2048)
        assert found.vectors.isfinite().all()
        assert found.logits is None


@pytest.fixture(scope="module")
def inception(inception_file: Path) -> InceptionExtractor:
    return InceptionExtractor(inception_file, CPU)


def coarse_pictures(seed: int) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    coarse = torch.rand((75, 3, 5, 5), generator=stream) * (0.5 + 0.4 * seed)
    return (functional.interpolate(coarse, size=40, mode="bilinear") * 255).byte()


def test_fid_and_kid_of_images_are_torch_fidelitys_with_the_same_network(inception: InceptionExtractor) -> None:
    """From uint8 images on, with the network's first 64 features: 2,048 would need hundreds of images and minutes."""
    pictures = [coarse_pictures(seed) for seed in (0, 1)]
    inception._network.features_list = ["64"]
    theirs = [torch.cat([inception._network(batch)[0] for batch in images.split(25)]).double() for images in pictures]
    ours = [inception(images).vectors for images in pictures]
    inception._network.features_list = ["2048"]
    assert ours[0].shape == (75, 64)
    fid = fid_statistics_to_metric(*(fid_features_to_statistics(vectors) for vectors in theirs), verbose=False)
    assert frechet_distance(*ours) == pytest.approx(fid["frechet_inception_distance"], rel=1e-6)
    kid = kid_features_to_metric(*theirs, kid_subsets=1, kid_subset_size=75, verbose=False)
    assert kernel_distance(*ours) == pytest.approx(kid["kernel_inception_distance_mean"], rel=1e-6)


def test_inception_is_called_so_only_with_its_published_checksum(
    inception: InceptionExtractor, inception_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inception.name == "inception (unpublished weights)"
    sha256 = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    monkeypatch.setattr(features, "PUBLISHED_INCEPTION", sha256[:8])
    assert InceptionExtractor(inception_file, CPU).name == "inception"


def test_a_file_that_is_not_what_its_name_promises_is_refused(inception_file: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "weights-inception-2015-12-05-6726825d.pth"
    renamed.symlink_to(inception_file)
    with pytest.raises(UserError, match=r"its checksum is .* not 6726825d as its name says"):
        InceptionExtractor(renamed, CPU)


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "evil.pth"
    torch.save({"fc.weight": pathlib.Path("/tmp")}, file)
    with pytest.raises(UserError, match=r"evil\.pth: not the Inception-v3"):
        InceptionExtractor(file, CPU)


def test_without_a_network_the_message_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match="pass a copy with --inception-weights PATH"):
        InceptionExtractor(None, CPU)


def test_inception_says_what_is_wrong_with_its_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pth: no such file"):
        InceptionExtractor(tmp_path / "absent.pth", CPU)
    (tmp_path / "other.pth").write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"other\.pth: not the Inception-v3"):
        InceptionExtractor(tmp_path / "other.pth", CPU)
