"""Rebuild the embedded files from full MNIST and Fashion-MNIST: ``nox -s assets -- --data-dir DIR``."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from torchvision.datasets import MNIST, FashionMNIST

from bench import command
from gan_ablate.atomic_io import write_atomically
from gan_ablate.scoring.extractors import EXTRACTION_BATCH, ClassifierName, ImageClassifier

ASSETS = Path(__file__).parents[1] / "gan_ablate" / "assets"
NUM_TRAIN_DIGITS = 10_000
DATASETS: dict[ClassifierName, type[MNIST]] = {"digits": MNIST, "fashion": FashionMNIST}
REQUIRED_ACCURACY: dict[ClassifierName, float] = {"digits": 0.993, "fashion": 0.92}


def main(
    *,
    data_dir: Annotated[Path, typer.Option(help="torchvision's root of MNIST and FashionMNIST.")],
    download: Annotated[bool, typer.Option(help="Download the data sets where they are missing.")] = False,
    epochs: Annotated[int, typer.Option(help="Training epochs of each classifier.")] = 20,
    only: Annotated[ClassifierName | None, typer.Option(help="Rebuild this classifier's files alone.")] = None,
) -> None:
    """Rebuild the embedded digits and classifiers, and their checksums."""
    for name, dataset in DATASETS.items():
        if only not in (None, name):
            continue
        train, test = (dataset(data_dir, train=part, download=download) for part in (True, False))
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


def train_classifier(
    name: ClassifierName, train: MNIST, test: MNIST, num_epochs: int, seed: int = 0
) -> tuple[ImageClassifier, float]:
    """Train a classifier and scale its features; exit where its accuracy is below the required one.

    Args:
        name: of the classifier.
        train: 28×28 images and labels to learn from.
        test: 28×28 images and labels to measure accuracy and scale on.
        num_epochs: passes over the training images.
        seed: of its initial weights, the order of the images and their distortions.

    Returns:
        The classifier and its test accuracy.
    """
    torch.manual_seed(seed)
    y_train, y_test = train.targets, test.targets
    network = ImageClassifier().to(memory_format=torch.channels_last)
    x_train, x_test = (x.unsqueeze(1).float() / 127.5 - 1 for x in (train.data, test.data))
    batch_size = 128
    num_steps = num_epochs * math.ceil(len(x_train) / batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=num_steps)
    for epoch in range(num_epochs):
        network.train()
        for indices in torch.randperm(len(x_train)).split(batch_size):
            x = _augment(x_train[indices], is_garment=name == "fashion")
            _, logits = network(x.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits, y_train[indices], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        _, accuracy = _evaluate(network, x_test, y_test)
        print(f"{name} epoch {epoch + 1}/{num_epochs}: test accuracy {accuracy:.4f}", flush=True)

    vectors, accuracy = _evaluate(network, x_test, y_test)
    if accuracy < REQUIRED_ACCURACY[name]:
        raise SystemExit(f"{name}: test accuracy {accuracy:.4f} is below the required {REQUIRED_ACCURACY[name]}")
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


@torch.inference_mode()
def _evaluate(network: ImageClassifier, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
    network.eval()
    vectors, logits = zip(*(network(batch) for batch in x.split(EXTRACTION_BATCH)), strict=True)
    return torch.cat(vectors), (torch.cat(logits).argmax(1) == y).float().mean().item()


def _save_digits(part: str, images: Tensor, labels: Tensor) -> None:
    """Save (N, 28, 28) uint8 images and their labels, losslessly compressed."""
    np.savez_compressed(ASSETS / f"mnist-10k-{part}.npz", images=images.numpy(), labels=labels.numpy().astype(np.uint8))


if __name__ == "__main__":
    command.run(main)
