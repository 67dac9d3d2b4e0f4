"""Feature extractors: the small classifiers, Inception-v3 and a user's, from uint8 images to feature vectors."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, assert_never

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from gan_ablate.atomic_io import read_asset
from gan_ablate.design.source_files import name_file
from gan_ablate.design.user_code import ModuleExtractor, ScriptExtractor, UserExtractor
from gan_ablate.errors import UserError, option
from gan_ablate.training.runtime import keeping_streams, reproducible_float32, seed_streams
from gan_ablate.training.user_code import find_place, make_user_part, watching

if TYPE_CHECKING:
    from collections.abc import Callable

ClassifierName = Literal["digits", "fashion", "objects"]

EXTRACTION_BATCH = 250
"""Images per forward pass. Fixed, because a convolution may round differently at another batch size."""


PUBLISHED_INCEPTION = "6726825d"
"""What the SHA-256 of the published Inception weights begins with, by the name they are published under."""


@dataclass(frozen=True)
class Features:
    """What an extractor says of N images.

    Attributes:
        vectors: (N, D) float32, the features that distances are computed on.
        logits: (N, K) float32 class scores, or None where the extractor has no classes worth counting.
    """

    vectors: Tensor
    logits: Tensor | None


class FeatureExtractor(Protocol):
    """A frozen network with the name and checksum that identify its scores.

    ``is_fast`` says whether it can look at a whole training set, and its covariances be taken apart again and again.
    """

    name: str
    sha256: str
    num_features: int
    is_fast: bool

    def __call__(self, images: Tensor) -> Features:
        """Extract features of ``images``: (N, C, H, W) uint8 of any size."""
        ...


class ImageClassifier(nn.Module):
    """A convolutional classifier into ten classes: of 28×28 grey images here, of 32×32 colour ones below.

    Its features are the 64 values before the last hidden layer's rectifier: they are closer to Gaussian than the
    rectified ones, which is what the Fréchet distance assumes.
    """

    num_features = 64
    num_channels = 1
    image_size = 28
    dropout = 0.3

    def __init__(self) -> None:
        super().__init__()
        self.body = self._build_body()
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(self.dropout), nn.Linear(self.num_features, 10))
        self.feature_scale: Tensor
        self.register_buffer("feature_scale", torch.ones(()))

    def _build_body(self) -> nn.Sequential:
        # Both first layers halve the picture: at full size they would cost more than all the others together.
        return nn.Sequential(
            nn.Conv2d(1, 32, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 3 * 3, self.num_features),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Classify ``x``: (B, num_channels, image_size, image_size) float32 in [-1, 1].

        Returns:
            Features (B, 64), scaled so that those of real images have a mean variance of one, and logits (B, 10).
        """
        hidden: Tensor = self.body(x)
        return hidden * self.feature_scale, self.head(hidden)


class ColourClassifier(ImageClassifier):
    """A four-layer convolutional classifier of 32×32 colour images into CIFAR-10's ten classes."""

    num_channels = 3
    image_size = 32
    dropout = 0.2

    def _build_body(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(128, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128 * 2 * 2, self.num_features),
        )  # fmt: skip


CLASSIFIERS: dict[ClassifierName, type[ImageClassifier]] = {
    "digits": ImageClassifier,
    "fashion": ImageClassifier,
    "objects": ColourClassifier,
}


class ClassifierExtractor:
    """Features and class scores from one of the embedded classifiers.

    Args:
        name: which of the embedded classifiers.
        device: where to run it.
        network: another one to take instead of the embedded one.
        has_classes: whether the images have the classifier's classes; else features have no class scores.

    Raises:
        UserError: if the embedded weights do not have the checksum they were shipped with.
    """

    num_features = ImageClassifier.num_features
    is_fast = True

    def __init__(
        self,
        name: ClassifierName,
        device: torch.device,
        network: ImageClassifier | None = None,
        *,
        has_classes: bool = True,
    ) -> None:
        self.name: str = name
        self._device, self._has_classes = device, has_classes
        if network is None:
            weights, self.sha256 = read_asset(f"{name}.safetensors")
            network = CLASSIFIERS[name]()
            network.load_state_dict(load(weights))
        else:
            self.sha256 = _state_sha256(network)
        self._network = network.eval().to(memory_format=torch.channels_last).to(device)

    def __call__(self, images: Tensor) -> Features:
        """Extract features of ``images``: (N, C, H, W) uint8, resized (antialiased) to the network's size."""
        return _extract(self._forward, images, self._device)

    def _forward(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        x = _resize(batch, self._network.image_size)
        features: Tensor
        features, logits = self._network(x / 127.5 - 1)
        return features, logits if self._has_classes else None


class InceptionExtractor:
    """The Inception-v3 of FID (2015-12-05), 2048 pooled features, through torch-fidelity.

    Its ``name`` is ``inception`` only if the file has the published checksum: scores made with other weights of that
    layout are scores of another network, and say so.

    Args:
        weights: the ``.pth`` file, or None to download the published one into PyTorch's cache.
        device: where to run it.

    Raises:
        UserError: if torch-fidelity is not installed, the file is missing, is not of that layout, or is not the one
            that its own name promises.
    """

    num_features = 2048
    is_fast = False

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        try:
            from torch_fidelity import feature_extractor_inceptionv3 as inception
        except ModuleNotFoundError as missing:
            raise UserError("Inception features need torch-fidelity: pip install 'gan-ablate[inception]'") from missing
        file = _download(inception.URL_INCEPTION_V3) if weights is None else weights
        if not file.is_file():
            raise UserError(f"{option('inception_weights', file)}: no such file")
        self.name: str = "inception" if _check_inception(file) else "inception (unpublished weights)"
        try:
            torch.load(file, weights_only=True)  # refuses a pickle that would run code; torch-fidelity does not
            self._network = inception.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)
            )
        except Exception as unreadable:  # whatever torch.load and load_state_dict raise on a foreign file
            reason = _say_why_not(file, unreadable)
            raise UserError(
                f"{option('inception_weights', file)}: not the Inception-v3 of torch-fidelity ({reason})"
            ) from unreadable
        self._network.eval().to(device)
        self._device = device
        self.sha256 = _state_sha256(self._network)

    def __call__(self, images: Tensor) -> Features:
        """Extract features of ``images``: (N, 1 or 3, H, W) uint8; the network resizes them to 299×299 itself."""
        return _extract(self._forward, images, self._device)

    def _forward(self, batch: Tensor) -> tuple[Tensor, None]:
        (features,) = self._network(batch.expand(-1, 3, -1, -1))
        return features, None


def build_untrained_inception(device: torch.device) -> Callable[[Tensor], Features]:
    """Build a network of Inception's layers with random weights, which takes as long as Inception and scores nothing.

    Args:
        device: where to run it.

    Returns:
        A function of (N, 1 or 3, H, W) uint8 images, which are resized to 299×299.
    """
    from torchvision.models import inception_v3

    network = inception_v3(weights=None, aux_logits=False, init_weights=False).eval().to(device)

    def forward(batch: Tensor) -> tuple[Tensor, None]:
        x = functional.interpolate(batch.expand(-1, 3, -1, -1).float(), size=(299, 299), mode="bilinear")
        return network(x / 127.5 - 1), None

    return lambda images: _extract(forward, images, device)


USER_BATCH = 50
"""Images per call of a user's extractor, which may be a large network on large images."""

MAX_USER_FEATURES = 8_192
"""The most features of a user's extractor: FID takes minutes and gigabytes for the covariances of more."""


class UserFeatureExtractor:
    """Features from a user's network, tried on a few images before it is used.

    Its checksum is of its code or file, its settings, and the weights of a module that is a class.

    Args:
        part: which one.
        device: where to run it.
        images: (N, C, H, W) uint8, of the data set, to try it on.

    Raises:
        UserError: if it cannot be loaded or called, or does not give one finite vector for each image, which depends
            on nothing else.
    """

    is_fast = False

    def __init__(self, part: UserExtractor, device: torch.device, images: Tensor) -> None:
        self.name: str = part.path
        self._device, self._size = device, part.size
        self._where = f"scoring.features.path = {part.path!r}"
        digest = hashlib.sha256(part.model_dump_json().encode())
        if part.kind == "torchscript":
            self._embed: Callable[[Tensor], Any] = _load_script(part, device, self._where)
        else:
            self._embed, _ = make_user_part(part, 0)
        if not callable(self._embed):
            raise UserError(f"{self._where}: of type {type(self._embed).__name__}; valid: a function or class")
        if isinstance(self._embed, nn.Module):
            self._embed.eval().to(device)
        self.num_features = 0
        self._try(images[:NUM_TRIED])
        if isinstance(self._embed, nn.Module):  # now that lazy layers have weights
            digest.update(_state_sha256(self._embed).encode())
        self.sha256 = digest.hexdigest()

    def __call__(self, images: Tensor) -> Features:
        """Extract features of ``images``: (N, C, H, W) uint8, resized (antialiased) where the extractor has a size."""
        with watching(self._where):
            features = _extract(self._forward, images, self._device, USER_BATCH)
        num_broken = int((~features.vectors.isfinite()).any(1).sum())
        if num_broken:
            raise UserError(f"{self._where}: NaN or infinite features of {num_broken:,} of {len(images):,} images")
        return features

    def _forward(self, batch: Tensor) -> tuple[Tensor, None]:
        x = (batch.float() if self._size is None else _resize(batch, self._size)) / 255
        try:
            vectors = self._embed(x)
        except (Exception, SystemExit) as broken:  # whatever a user's code raises
            reason = str(broken).strip().splitlines() or [""]
            what = f"given {tuple(x.shape)}, it fails ({type(broken).__name__}: {reason[-1].strip()[:300]})"
            raise UserError(f"{self._where}: {what}") from None
        num = self.num_features or (vectors.shape[-1] if isinstance(vectors, Tensor) and vectors.ndim == 2 else 0)
        is_tensor = isinstance(vectors, Tensor)
        if not is_tensor or vectors.shape != (len(x), num) or vectors.dtype != torch.float32:
            came = f"{tuple(vectors.shape)} of {vectors.dtype}" if is_tensor else f"a {type(vectors).__name__}"
            valid = f"({len(x)}, {num or 'D'}) of torch.float32"
            raise UserError(f"{self._where}: given {tuple(x.shape)}, it gives {came}; valid: {valid}")
        return vectors, None

    def _try(self, images: Tensor) -> None:
        """Call it three times on the same images, and refuse what is no feature of an image alone."""
        with keeping_streams():
            seed_streams(0)
            first = self(images).vectors
        self.num_features = num = first.shape[1]
        if not 0 < num <= MAX_USER_FEATURES:
            raise UserError(f"{self._where}: {num:,} features; valid: from 1 to {MAX_USER_FEATURES:,}")
        tolerance = 1e-3 * float(first.abs().max())
        advice = "valid: in eval mode"
        with keeping_streams():
            seed_streams(1)  # a stream that is put back after each call would give the same dropout again
            again = self(images).vectors
        if not torch.allclose(first, again, rtol=0, atol=tolerance):
            raise UserError(f"{self._where}: gives other features of the same images each time: dropout? {advice}")
        half = len(images) // 2
        if not torch.allclose(first[:half], self(images[:half]).vectors, rtol=0, atol=tolerance):
            what = "features of an image depend on the others of its batch: batch norm in train mode?"
            raise UserError(f"{self._where}: {what} {advice}")


NUM_TRIED = 8
"""Images that a user's extractor is tried on."""


def _load_script(part: ScriptExtractor, device: torch.device, where: str) -> nn.Module:
    """Load a TorchScript file that is still the one that was planned."""
    file = Path(find_place(part))
    if not file.is_file() or name_file(file) != part.code:
        raise UserError(f"{file}: it has changed since these runs were planned; run the same command again")
    try:
        with warnings.catch_warnings(action="ignore"):  # TorchScript warns that it is deprecated
            network: nn.Module = torch.jit.load(str(file), map_location=device)
    except Exception as broken:  # whatever PyTorch raises on a foreign file
        reason = str(broken).strip().partition("\n")[0][:200]
        raise UserError(f"{where}: no TorchScript ({reason}); valid: what torch.jit.save writes") from None
    return network


def _resize(batch: Tensor, size: int) -> Tensor:
    """Turn (B, C, H, W) uint8 into (B, C, size, size) float32 in 0…255; a resized picture is whole numbers again."""
    if batch.shape[-2:] == (size, size):
        return batch.float()
    x = functional.interpolate(batch.float(), size=(size, size), mode="bilinear", antialias=True)
    return x.round_().clamp_(0, 255)


def build_extractor(
    kind: Literal["digits", "fashion", "objects", "inception"] | UserExtractor,
    device: torch.device,
    inception_weights: Path | None = None,
    images: Tensor | None = None,
    dataset: str = "",
) -> FeatureExtractor:
    """Load the extractor of this kind onto ``device``.

    Args:
        kind: the extractor's name, or a user's.
        device: where to run it.
        inception_weights: a local copy of the Inception weights; other kinds ignore it.
        images: of the data set, to try a user's on.
        dataset: its name: objects are counted by class in CIFAR-10 alone.

    Raises:
        UserError: if the extractor cannot be loaded, or takes colour images and these are grey.
    """
    if isinstance(kind, ModuleExtractor | ScriptExtractor):
        assert images is not None
        return UserFeatureExtractor(kind, device, images)
    match kind:
        case "digits" | "fashion":
            return ClassifierExtractor(kind, device)
        case "objects":
            if images is not None and images.shape[1] != ColourClassifier.num_channels:
                raise UserError(f"{option('features', kind)}: it takes colour images; these are grey; valid: inception")
            return ClassifierExtractor(kind, device, has_classes=dataset == "cifar10")
        case "inception":
            return InceptionExtractor(inception_weights, device)
        case _:
            assert_never(kind)


@torch.inference_mode()
def _extract(
    forward: Callable[[Tensor], tuple[Tensor, Tensor | None]],
    images: Tensor,
    device: torch.device,
    batch_size: int = EXTRACTION_BATCH,
) -> Features:
    if images.dtype != torch.uint8:
        raise TypeError(f"features are extracted from uint8 images, not {images.dtype}")
    # Whatever the caller set: another precision would move the score.
    with torch.autocast(device.type, enabled=False), reproducible_float32():
        parts = [forward(batch.to(device)) for batch in images.split(batch_size)]
    vectors = torch.cat([features for features, _ in parts]).float().cpu()
    logits = [part for _, part in parts if part is not None]
    return Features(vectors, torch.cat(logits).float().cpu() if logits else None)


def _say_why_not(file: Path, unreadable: Exception) -> str:
    """Say what is wrong with a file of weights: PyTorch's words are empty, a number, or advice not to be followed."""
    if not file.stat().st_size:
        return "the file is empty"
    if isinstance(unreadable, RuntimeError) and "state_dict" in str(unreadable):
        return "it holds the weights of another network"
    return "it is no file of weights alone: cut short, of another kind, or with code in it"


def _download(url: str) -> Path:
    """Fetch the published weights into PyTorch's cache, or find them there."""
    folder = Path(torch.hub.get_dir())
    if folder.parts[0] == "~":  # PyTorch would make a folder of that name here
        raise UserError(
            "The Inception weights have no place to be kept, as this user has no home: "
            f"set TORCH_HOME, or pass a copy with {option('inception_weights', 'PATH')}"
        )
    file = folder / "checkpoints" / url.rsplit("/", 1)[1]
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), PUBLISHED_INCEPTION, progress=False)
        except (OSError, RuntimeError) as failure:  # offline, or another checksum
            raise UserError(
                f"The Inception weights could not be downloaded ({failure}): pass a copy with "
                f"{option('inception_weights', 'PATH')}"
            ) from None
    return file


def _check_inception(file: Path) -> bool:
    """Whether ``file`` is the published one.

    Raises:
        UserError: if its name ends in another checksum than its content's, as PyTorch's hub names files.
    """
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    promised = re.search(r"-([0-9a-f]{8,})$", file.stem)
    if promised is not None and not sha256.startswith(promised[1]):
        raise UserError(
            f"{option('inception_weights', file)}: its checksum is {sha256[:12]}…, not {promised[1]} as its name says: "
            "fetch it again"
        )
    return sha256.startswith(PUBLISHED_INCEPTION)


def _state_sha256(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
