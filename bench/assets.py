"""Rebuild the embedded files from MNIST, Fashion-MNIST and a colour folder: ``nox -s assets -- --data-dir DIR``."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, assert_never

import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from torchvision.datasets import MNIST, FashionMNIST, ImageFolder
from torchvision.transforms.v2.functional import gaussian_blur

from bench import command
from gan_ablate.atomic_io import write_atomically
from gan_ablate.errors import UserError
from gan_ablate.scoring.extractors import (
    CLASSIFIERS,
    EXTRACTION_BATCH,
    ClassifierExtractor,
    ClassifierName,
    ImageClassifier,
)
from gan_ablate.scoring.metrics import frechet_distance

ASSETS = Path(__file__).parents[1] / "gan_ablate" / "assets"
NUM_TRAIN_DIGITS = 10_000
OBJECTS_FOLDER = "cifar10_folder"
"""Below --data-dir: ``train/CLASS`` and ``test/CLASS`` with 10,000 and 2,000 of CIFAR-10's images, 32×32."""


@dataclass(frozen=True)
class Recipe:
    """What the training of one classifier differs in.

    Attributes:
        required_accuracy: on the test images; below it nothing is saved.
        max_lr: peak learning rate of the one-cycle schedule.
        weight_decay: of AdamW.
        label_smoothing: of the cross-entropy.
    """

    required_accuracy: float
    max_lr: float = 4e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.05


RECIPES: dict[ClassifierName, Recipe] = {
    "digits": Recipe(required_accuracy=0.993),
    "fashion": Recipe(required_accuracy=0.92),
    "objects": Recipe(required_accuracy=0.75, max_lr=5e-3, weight_decay=0.05, label_smoothing=0.1),
}


class LabelledImages(Protocol):
    """Images, (N, H, W) or (N, C, H, W) uint8, and their classes, (N,) int64."""

    @property
    def data(self) -> Tensor: ...
    @property
    def targets(self) -> Tensor: ...


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder with one folder for each class.

    Attributes:
        data: (N, 3, H, W) uint8.
        targets: (N,) int64, classes in the order of their names.
    """

    data: Tensor
    targets: Tensor


def main(
    *,
    data_dir: Annotated[Path, typer.Option(help="The folder of MNIST, FashionMNIST and cifar10_folder.")],
    download: Annotated[bool, typer.Option(help="Download the data sets where they are missing.")] = False,
    epochs: Annotated[int, typer.Option(help="Training epochs of each classifier.")] = 20,
    only: Annotated[ClassifierName | None, typer.Option(help="Rebuild this classifier's files alone.")] = None,
    check_objects: Annotated[
        bool, typer.Option("--check-objects", help="Rebuild nothing; print FIDs of corrupted images of objects.")
    ] = False,
) -> None:
    """Rebuild the embedded digits and classifiers, and their checksums."""
    if check_objects:
        _check_objects(data_dir)
        return
    names = [only] if only else list(RECIPES)
    if "objects" in names and not (data_dir / OBJECTS_FOLDER).is_dir():
        raise UserError(f"--data-dir {data_dir}: no {OBJECTS_FOLDER}/ in it; valid: with it, or --only digits, fashion")
    for name in names:
        if name == "objects":
            torch.set_num_threads(1)  # sums, and so the weights, depend on the number of threads
        train, test = (_load(name, data_dir, is_train=part, download=download) for part in (True, False))
        network, accuracy = train_classifier(name, train, test, epochs)
        weights = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        save_file(weights, ASSETS / f"{name}.safetensors", {"test_accuracy": f"{accuracy:.4f}"})
        if name == "digits":
            _save_digits("train", train.data[:NUM_TRAIN_DIGITS], train.targets[:NUM_TRAIN_DIGITS])
            _save_digits("test", test.data, test.targets)
    files = sorted((*ASSETS.glob("*.npz"), *ASSETS.glob("*.safetensors")))
    for file in files:
        file.chmod(0o644)
    sums = (f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    write_atomically(ASSETS / "SHA256SUMS", "".join(sums))


def _load(name: ClassifierName, data_dir: Path, *, is_train: bool, download: bool) -> LabelledImages:
    match name:
        case "digits":
            digits: LabelledImages = MNIST(data_dir, train=is_train, download=download)
            return digits
        case "fashion":
            garments: LabelledImages = FashionMNIST(data_dir, train=is_train, download=download)
            return garments
        case "objects":
            pictures, classes = zip(
                *ImageFolder(data_dir / OBJECTS_FOLDER / ("train" if is_train else "test")), strict=True
            )
            images = np.stack([np.asarray(picture) for picture in pictures])
            return FolderImages(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(classes))
        case _:
            assert_never(name)


def train_classifier(
    name: ClassifierName, train: LabelledImages, test: LabelledImages, num_epochs: int, seed: int = 0
) -> tuple[ImageClassifier, float]:
    """Train a classifier and scale its features; exit where its accuracy is below the required one.

    Args:
        name: of the classifier.
        train: images and labels to learn from.
        test: images and labels to measure accuracy and scale on.
        num_epochs: passes over the training images.
        seed: of its initial weights, the order of the images and their distortions.

    Returns:
        The classifier and its test accuracy.
    """
    torch.manual_seed(seed)
    y_train, y_test = train.targets, test.targets
    recipe = RECIPES[name]
    network = CLASSIFIERS[name]().to(memory_format=torch.channels_last)
    images = (x if x.ndim == 4 else x.unsqueeze(1) for x in (train.data, test.data))
    x_train, x_test = (x.float() / 127.5 - 1 for x in images)
    batch_size = 128
    num_steps = num_epochs * math.ceil(len(x_train) / batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=recipe.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.max_lr, total_steps=num_steps)
    for epoch in range(num_epochs):
        network.train()
        for indices in torch.randperm(len(x_train)).split(batch_size):
            x = x_train[indices]
            x = _shift_and_mirror(x) if name == "objects" else _augment(x, is_garment=name == "fashion")
            _, logits = network(x.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, y_train[indices], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        _, accuracy = _evaluate(network, x_test, y_test)
        print(f"{name} epoch {epoch + 1}/{num_epochs}: test accuracy {accuracy:.4f}", flush=True)

    vectors, accuracy = _evaluate(network, x_test, y_test)
    if accuracy < recipe.required_accuracy:
        raise SystemExit(f"{name}: test accuracy {accuracy:.4f} is below the required {recipe.required_accuracy}")
    network.feature_scale.fill_(1 / math.sqrt(vectors.double().var(0).mean().item()))
    return network, accuracy


def _augment(x: Tensor, *, is_garment: bool) -> Tensor:
    """Rotate, scale and shift at random: digits by up to 10°, 10 % and 2 pixels.

    Garments are centred and upright in every picture, so they move by a quarter of that, but half of them are mirrored.
    """
    num, strength = len(x), 0.25 if is_garment else 1.0
    angle = torch.empty(num).uniform_(-math.pi / 18, math.pi / 18) * strength
    scale = 1 + torch.empty(num).uniform_(-0.1, 0.1) * strength
    mirror = torch.where(torch.rand(num) < 0.5, -1.0, 1.0) if is_garment else torch.ones(num)
    shift = torch.empty(num, 2).uniform_(-2 / 14, 2 / 14) * strength
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack((cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1]), 1).view(num, 2, 3)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    # Outside the picture is background, -1, where the padding is 0.
    return functional.grid_sample(x + 1, grid, align_corners=False) - 1


def _shift_and_mirror(x: Tensor) -> Tensor:
    """Shift each image by up to 4 pixels, its edges reflected, and mirror half of them: the usual for CIFAR-10."""
    num, size, most = len(x), x.shape[-1], 4
    windows = functional.pad(x, (most,) * 4, mode="reflect").unfold(2, size, 1).unfold(3, size, 1)
    down, right = torch.randint(0, 2 * most + 1, (2, num))
    x = windows[torch.arange(num), :, down, right]
    return torch.where((torch.rand(num) < 0.5)[:, None, None, None], x.flip(3), x)


@torch.inference_mode()
def _evaluate(network: ImageClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    network.eval()
    vectors, logits = zip(*(network(batch) for batch in x.split(EXTRACTION_BATCH)), strict=True)
    return torch.cat(vectors), (torch.cat(logits).argmax(1) == y).float().mean().item()


def _check_objects(data_dir: Path) -> None:
    """Print the accuracy of the shipped classifier of objects, and FIDs of 5,000 training images made worse."""
    torch.set_num_threads(1)
    train, test = (_load("objects", data_dir, is_train=part, download=False) for part in (True, False))
    extractor = ClassifierExtractor("objects", torch.device("cpu"))
    held_out = extractor(test.data)
    assert held_out.logits is not None
    print(f"accuracy {(held_out.logits.argmax(1) == test.targets).float().mean().item():.4f}")
    stream = torch.Generator().manual_seed(0)
    order = torch.randperm(len(train.data), generator=stream)
    images, classes, num = train.data[order], train.targets[order], 5_000
    some, vectors = images[:num], extractor(images).vectors

    def fid(vectors: Tensor) -> float:
        return frechet_distance(held_out.vectors, vectors)

    def blur(sigma: float) -> Tensor:
        blurred: Tensor = gaussian_blur(some, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)
        return blurred

    def add_noise(sigma: int) -> Tensor:
        noise = torch.randn(some.shape, generator=stream)
        return (some.float() + sigma * noise).round().clamp(0, 255).byte()

    rows: dict[str, dict[Any, float]] = {
        "real": {num: fid(vectors[:num])},
        "blur, σ in pixels": {sigma: fid(extractor(blur(sigma)).vectors) for sigma in (0.4, 0.6, 0.8, 1.0, 1.5)},
        "noise, σ in grey levels": {sigma: fid(extractor(add_noise(sigma)).vectors) for sigma in (4, 8, 16, 32, 48)},
        "lost classes": {lost: fid(vectors[classes >= lost][:num]) for lost in (1, 2, 3, 5, 7, 9)},
        "distinct images": {few: fid(vectors[:few].repeat(num // few, 1)) for few in (2_500, 1_000, 500, 100, 10)},
    }
    for name, ladder in rows.items():
        print(f"{name}: " + ", ".join(f"{step}: {value:.2f}" for step, value in ladder.items()))


def _save_digits(part: str, images: Tensor, labels: Tensor) -> None:
    """Save (N, 28, 28) uint8 images and their labels, losslessly compressed."""
    np.savez_compressed(ASSETS / f"mnist-10k-{part}.npz", images=images.numpy(), labels=labels.numpy().astype(np.uint8))


if __name__ == "__main__":
    command.run(main)
