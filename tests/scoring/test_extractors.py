from __future__ import annotations

import hashlib
import os
import pathlib
import sys
import warnings
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torchvision.transforms.v2 import functional as vision

from gan_ablate.atomic_io import read_asset
from gan_ablate.design.user_code import ModuleExtractor, ScriptExtractor, UserCode
from gan_ablate.errors import UserError
from gan_ablate.scoring import extractors as features
from gan_ablate.scoring.extractors import (
    ClassifierExtractor,
    ClassifierName,
    FeatureExtractor,
    ImageClassifier,
    InceptionExtractor,
    build_extractor,
    build_untrained_inception,
)
from gan_ablate.scoring.metrics import frechet_distance, kernel_distance
from gan_ablate.training.data import load_dataset, resize
from gan_ablate.training.user_code import allow_code

CPU = torch.device("cpu")
CLASSIFIERS: tuple[ClassifierName, ...] = ("digits", "fashion", "objects")


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
    assert len(files) == 3
    assert sum(len(file.read_bytes()) for file in files) < 2_000_000


def colour_digits(num: int) -> Tensor:
    """Digits on a ground, each pair of colours at random: (num, 3, 32, 32) uint8."""
    digits = functional.pad(load_dataset("mnist-10k", 28, Path()).reference[:num], (2,) * 4).float() / 255
    ink, ground = torch.rand((2, num, 3, 1, 1), generator=torch.Generator().manual_seed(0)) * 255
    blend: Tensor = digits * ink + (1 - digits) * ground
    return blend.round().byte()


def test_objects_have_64_features_of_colour_images_and_no_classes_but_in_cifar10() -> None:
    images = colour_digits(20)
    found = build_extractor("objects", CPU, dataset="folder:pictures@0")(images)
    assert found.vectors.shape == (20, 64)
    assert found.logits is None
    known = build_extractor("objects", CPU, dataset="cifar10")(images)
    assert known.logits is not None
    assert known.logits.shape == (20, 10)
    assert torch.equal(known.vectors, found.vectors)


def test_more_blur_and_more_noise_raise_the_fid_of_objects() -> None:
    images = colour_digits(1_300)
    extractor = build_extractor("objects", CPU)
    real = extractor(images).vectors
    noise = 48 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    blurred = [
        frechet_distance(real, extractor(vision.gaussian_blur(images, [7, 7], [s, s])).vectors) for s in (0.6, 1.2)
    ]
    noisy = [
        frechet_distance(real, extractor((images + share * noise).round().clamp(0, 255).byte()).vectors)
        for share in (0.25, 1)
    ]
    assert 0.1 < blurred[0] < blurred[1] / 1.5
    assert 0.1 < noisy[0] < noisy[1] / 1.5


def test_the_objects_classifier_is_right_on_75_of_100_held_out_images(shared_data: Path) -> None:
    from torchvision.datasets import ImageFolder

    pictures, classes = zip(*ImageFolder(shared_data / "cifar10_folder" / "test"), strict=True)
    images = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    assert accuracy(ClassifierExtractor("objects", CPU), images, torch.tensor(classes)) >= 0.75


def test_objects_refuse_grey_images() -> None:
    with pytest.raises(UserError, match="it takes colour images; these are grey; valid: inception"):
        build_extractor("objects", CPU, images=torch.zeros(8, 1, 32, 32, dtype=torch.uint8))


def test_weights_that_were_tampered_with_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content, _ = read_asset("digits.safetensors")
    (tmp_path / "digits.safetensors").write_bytes(content[:-1] + b"\x00")
    sums = resources.files("gan_ablate.assets").joinpath("SHA256SUMS").read_text("ascii")
    (tmp_path / "SHA256SUMS").write_text(sums, "ascii")
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    with pytest.raises(UserError, match=r"digits\.safetensors: the checksum"):
        read_asset("digits.safetensors")


def test_other_sizes_are_resized_before_extraction(digits: ClassifierExtractor) -> None:
    reference = load_dataset("mnist-10k", 28, Path()).reference[:500]
    enlarged = reference.repeat_interleave(2, 2).repeat_interleave(2, 3)
    same = (digits(enlarged).logits.argmax(1) == digits(reference).logits.argmax(1)).float().mean()  # type: ignore[union-attr]
    assert same >= 0.99


@pytest.mark.parametrize("size", [[16, 16], [40, 40], [56, 56], [40, 28], [28, 20]])
def test_other_sizes_are_resized_as_torchvision_does(digits: ClassifierExtractor, size: list[int]) -> None:
    """Antialiased, in whole numbers: up to a grey level here and there, where rounding differs."""
    reference = load_dataset("mnist-10k", 28, Path()).reference[:300]
    other = vision.resize(reference, size, antialias=True)
    again = vision.resize(other, [28, 28], antialias=True)
    torch.testing.assert_close(digits(other).vectors, digits(again).vectors, rtol=0, atol=0.1)


def test_images_go_through_the_network_in_parts_of_a_fixed_size(
    digits: ClassifierExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def look(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(batch))
        return batch.double().flatten(1)[:, :1], batch.double().flatten(1)[:, 1:3]

    monkeypatch.setattr(digits, "_forward", look)
    images = torch.arange(601 * 4).reshape(601, 1, 2, 2).byte()
    found = digits(images)
    assert sizes == [250, 250, 101]
    assert found.logits is not None
    assert found.vectors.dtype == found.logits.dtype == torch.float32
    assert torch.equal(found.vectors, images.flatten(1)[:, :1].float())
    assert torch.equal(found.logits, images.flatten(1)[:, 1:3].float())


def test_features_are_scaled_and_logits_are_of_what_was_before() -> None:
    torch.manual_seed(0)
    network = ImageClassifier()
    network.feature_scale.fill_(0.25)
    weights = network.state_dict()
    extractor = ClassifierExtractor("fashion", CPU, network)
    images = load_dataset("mnist-10k", 28, Path()).reference[:20]
    with torch.inference_mode():
        hidden = network.body(images.float() / 127.5 - 1)
        logits = hidden.clamp_min(0) @ weights["head.2.weight"].T + weights["head.2.bias"]
    found = extractor(images)
    assert found.logits is not None
    torch.testing.assert_close(found.vectors, hidden / 4, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.logits, logits, rtol=1e-4, atol=1e-5)
    assert not found.vectors.requires_grad


def checksum(network: torch.nn.Module) -> str:
    total, tensors = hashlib.sha256(), network.state_dict()
    for name in sorted(tensors):
        total.update(name.encode() + tensors[name].numpy().tobytes())
    return total.hexdigest()


def test_an_extractor_is_known_by_its_name_and_its_weights(inception: InceptionExtractor) -> None:
    torch.manual_seed(0)
    network = ImageClassifier()
    own = ClassifierExtractor("fashion", CPU, network)
    assert (own.name, own.sha256) == ("fashion", checksum(network))
    network.feature_scale.fill_(2)
    assert ClassifierExtractor("fashion", CPU, network).sha256 != own.sha256
    shipped = {name: ClassifierExtractor(name, CPU) for name in CLASSIFIERS}
    assert {name: (x.name, x.sha256) for name, x in shipped.items()} == {
        name: (name, read_asset(f"{name}.safetensors")[1]) for name in shipped
    }
    assert inception.sha256 == checksum(inception._network)


def test_an_extractor_is_built_by_its_kind(inception_file: Path) -> None:
    device = torch.device("cpu:0")  # not equal to "cpu"
    for kind in CLASSIFIERS:
        extractor = build_extractor(kind, device, inception_file)
        assert isinstance(extractor, ClassifierExtractor)
        assert extractor.name == kind
        assert extractor.is_fast
        assert extractor._device == device
    extractor = build_extractor("inception", device, inception_file)
    assert isinstance(extractor, InceptionExtractor)
    assert not extractor.is_fast
    assert extractor._device == device


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


def test_batch_has_the_features_of_its_single_images(digits: ClassifierExtractor) -> None:
    """In eval mode: with batch statistics, an image's features would depend on its neighbours."""
    images = load_dataset("mnist-10k", 28, Path()).reference[:20]
    alone = torch.cat([digits(image[None]).vectors for image in images])
    torch.testing.assert_close(digits(images).vectors, alone, rtol=1e-4, atol=1e-4)


def test_only_uint8_images_are_accepted(digits: ClassifierExtractor) -> None:
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_untrained_network_that_inception_is_timed_by_has_its_layers(inception: InceptionExtractor) -> None:
    built: list[nn.Module] = []

    def keep(network: nn.Module, _: torch.device) -> nn.Module:
        built.append(network)
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "to", keep)
        extract = build_untrained_inception(CPU)
    kernels = [
        sorted(weight.shape for weight in network.parameters() if weight.ndim == 4)
        for network in (built[0], inception._network)
    ]
    assert len(kernels[0]) == 94
    assert kernels[0] == kernels[1]
    assert len(extract(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).vectors) == 2


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
    with pytest.raises(UserError, match=r"evil\.pth': not the Inception-v3"):
        InceptionExtractor(file, CPU)


def test_no_code_in_weights_is_run(tmp_path: Path) -> None:
    made = tmp_path / "made"

    class MakesAFolder:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(made),)

    torch.save({"fc.weight": MakesAFolder()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth': .*with code in it"):
        InceptionExtractor(tmp_path / "evil.pth", CPU)
    assert not made.exists()


def test_without_torch_fidelity_the_message_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(UserError, match=r"pip install 'gan-ablate\[inception\]'$"):
        InceptionExtractor(None, CPU)


def test_without_a_network_the_message_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(UserError, match="pass a copy with inception_weights='PATH'"):
        InceptionExtractor(None, CPU)


@pytest.mark.slow
def test_published_weights_are_fetched_once_and_checked(
    inception_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[str] = []
    sha256 = hashlib.sha256(inception_file.read_bytes()).hexdigest()

    def fetch(url: str, place: str, promised: str, *, progress: bool) -> None:
        assert url.startswith("https://")
        assert promised == sha256[:8]
        assert not progress
        fetched.append(place)
        Path(place).symlink_to(inception_file)

    monkeypatch.setattr(features, "PUBLISHED_INCEPTION", sha256[:8])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    url = f"https://example.org/some/where/weights-{sha256[:8]}.pth"
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.URL_INCEPTION_V3", url)
    for _ in range(2):
        assert InceptionExtractor(None, CPU).name == "inception"
    assert fetched == [str(tmp_path / "hub" / "checkpoints" / f"weights-{sha256[:8]}.pth")]


def test_weights_of_another_checksum_are_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("invalid hash value")

    (tmp_path / "checkpoints").mkdir()  # of other networks
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UserError, match=r"could not be downloaded \(invalid hash value\)"):
        InceptionExtractor(None, CPU)


@pytest.mark.parametrize("name", ["weights-{sha256}.pth", "weights-{upper}.pth", "weights-6726825.pth", "weights.pth"])
def test_a_name_that_promises_no_other_checksum_is_taken(inception_file: Path, tmp_path: Path, name: str) -> None:
    """Eight digits or more, in lower case, at the end of the name, are a promise."""
    sha256 = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    file = tmp_path / name.format(sha256=sha256[:12], upper="A" * 8)
    file.symlink_to(inception_file)
    assert not features._check_inception(file)


def test_inception_says_what_is_wrong_with_its_weights(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    with pytest.raises(UserError, match=r"empty\.pth': .*\(the file is empty\)"):
        InceptionExtractor(tmp_path / "empty.pth", CPU)
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(UserError, match=r"linear\.pth': .*\(it holds the weights of another network\)"):
        InceptionExtractor(tmp_path / "linear.pth", CPU)
    with pytest.raises(UserError, match=r"absent\.pth': no such file"):
        InceptionExtractor(tmp_path / "absent.pth", CPU)
    whole = (tmp_path / "linear.pth").read_bytes()
    for content in (b"not weights", whole[:-100]):
        (tmp_path / "other.pth").write_bytes(content)
        with pytest.raises(UserError, match=r"other\.pth': not the Inception-v3 .*\(it is no file of weights alone"):
            InceptionExtractor(tmp_path / "other.pth", CPU)


def test_weights_of_a_user_without_a_home_are_not_put_into_a_folder_called_tilde(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "~/.cache/torch/hub")
    with pytest.raises(UserError, match="this user has no home: set TORCH_HOME, or pass a copy with inception_weights"):
        features._download("https://example.org/weights.pth")
    assert not Path("~").exists()


MINE = """
import torch
from torch import nn
from torch.nn import functional

WEIGHTS = torch.nn.Linear(16, 4)

def embed(images, scale=1.0):
    assert 0 <= images.min() and images.max() <= 1
    return functional.adaptive_avg_pool2d(images[:, :1], 4).flatten(1) * scale

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 5), nn.BatchNorm2d(width), nn.Dropout(), nn.Flatten())
        self.last = nn.LazyLinear(8)
    def forward(self, x):
        return self.last(self.layers(x))

class Pixels:
    def __call__(self, images):
        return images.flatten(1)[:, :20]

def noisy(images): return functional.dropout(embed(images), 0.5)
def mixed(images): return embed(images) - embed(images).mean(0)
def double(images): return embed(images).double()
def flat(images): return embed(images).mean(1)
def one_for_all(images): return embed(images)[:1]
def words(images): return "features"
def broken(images): return embed(images) / 0
def failing(images): return embed(images) @ torch.ones(3, 3)
def nothing(images): return embed(images)[:, :0]
def many(images): return torch.zeros(len(images), 9_000)
def seeding(images):
    torch.set_num_threads(2)
    return embed(images)
number = 3
"""

IMAGES = torch.randint(0, 256, (60, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "my_extractors.py").write_text(MINE)
    yield tmp_path
    sys.modules.pop("my_extractors", None)


def build_mine(name: str, folder: Path, images: Tensor = IMAGES, **settings: object) -> FeatureExtractor:
    code = UserCode(folder, is_allowed=True)
    given = code.complete_extractor({"kind": "module", "path": f"my_extractors:{name}", **settings}, "test")
    allow_code(code.paths)
    return build_extractor(ModuleExtractor(**given), torch.device("cpu"), images=images)


def test_a_users_function_is_called_with_images_between_zero_and_one(mine: Path) -> None:
    extractor = build_mine("embed", mine, scale=2.0)
    expected = functional.adaptive_avg_pool2d(IMAGES / 255, 4).flatten(1) * 2
    assert torch.allclose(extractor(IMAGES).vectors, expected)
    assert extractor(IMAGES).logits is None
    assert (extractor.num_features, extractor.name) == (16, "my_extractors:embed")


def test_a_users_network_is_put_into_eval_mode_with_the_same_weights_every_time(mine: Path) -> None:
    first, second = (build_mine("Net", mine, width=6) for _ in range(2))
    assert torch.equal(first(IMAGES).vectors, second(IMAGES).vectors)
    assert first.sha256 == second.sha256 != build_mine("Net", mine, width=7).sha256


def test_a_users_object_is_called_with_images(mine: Path) -> None:
    assert build_mine("Pixels", mine)(IMAGES).vectors.shape == (60, 20)


def test_images_are_resized_to_the_extractors_size(mine: Path) -> None:
    assert torch.equal(
        build_mine("embed", mine, size=14)(IMAGES).vectors, build_mine("embed", mine)(resize(IMAGES, 14)).vectors
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("noisy", "gives other features of the same images each time: dropout?"),
        ("mixed", "features of an image depend on the others of its batch: batch norm in train mode?"),
        ("double", r"given \(8, 1, 28, 28\), it gives \(8, 16\) of torch.float64; valid: \(8, 16\) of torch.float32"),
        ("flat", r"it gives \(8,\) of torch.float32; valid: \(8, D\) of torch.float32"),
        ("one_for_all", r"it gives \(1, 16\) of torch.float32; valid: \(8, 16\) of torch.float32"),
        ("words", "it gives a str"),
        ("broken", "NaN or infinite features of 8 of 8 images"),
        ("failing", r"given \(8, 1, 28, 28\), it fails \(RuntimeError: .*mat1 and mat2"),
        ("nothing", "0 features; valid: from 1 to 8,192"),
        ("many", "9,000 features; valid: from 1 to 8,192"),
        ("seeding", "sets torch.set_num_threads = 2"),
        ("number", "of type int; valid: a function or class"),
        ("absent", "cannot be imported"),
    ],
)
def test_what_is_no_feature_of_an_image_alone_is_refused(mine: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_mine(name, mine)


def test_another_source_is_another_extractor(mine: Path) -> None:
    first = build_mine("embed", mine).sha256
    (mine / "my_extractors.py").write_text(MINE.replace("scale=1.0", "scale=3.0"))
    assert build_mine("embed", mine).sha256 != first


def save_script(path: Path, network: nn.Module) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(network, torch.rand(2, 1, 28, 28), check_trace=False).save(str(path))


def complete_script(path: Path) -> ScriptExtractor:
    code = UserCode(path.parent, is_allowed=True)
    given = code.complete_extractor({"kind": "torchscript", "path": path.name}, "test")
    allow_code(code.paths)
    return ScriptExtractor(**given)


def test_a_torchscript_file_gives_its_features_and_is_named_by_its_content(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 5)).eval()
    save_script(tmp_path / "net.pt", network)
    part = complete_script(tmp_path / "net.pt")
    extractor = build_extractor(part, torch.device("cpu"), images=IMAGES)
    with torch.no_grad():
        assert torch.allclose(extractor(IMAGES).vectors, network(IMAGES / 255), atol=1e-5)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "net.pt"
    copy.write_bytes((tmp_path / "net.pt").read_bytes())
    assert complete_script(copy) == part
    save_script(copy, nn.Sequential(nn.Flatten(), nn.Linear(784, 5)).eval())
    with pytest.raises(UserError, match=r"net\.pt: it has changed since these runs were planned"):
        build_extractor(part, torch.device("cpu"), images=IMAGES)
    assert complete_script(copy) != part


def test_a_torchscript_file_with_dropout_in_it_is_refused(tmp_path: Path) -> None:
    save_script(tmp_path / "net.pt", nn.Sequential(nn.Flatten(), nn.Dropout()).train())
    part = complete_script(tmp_path / "net.pt")
    with pytest.raises(UserError, match="gives other features of the same images each time"):
        build_extractor(part, torch.device("cpu"), images=IMAGES)


def test_a_file_that_is_no_torchscript_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no TorchScript"):
        build_extractor(complete_script(tmp_path / "net.pt"), torch.device("cpu"), images=IMAGES)


def test_an_extractor_takes_nothing_from_trainings_streams(mine: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    build_mine("Net", mine)(IMAGES)
    assert torch.equal(torch.get_rng_state(), before)
