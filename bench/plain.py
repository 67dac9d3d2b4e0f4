"""The models and the training loop that tutorials print, layer by layer, with PyTorch's defaults.

The package uses none of it. Tests compare the package's presets with these networks, and benchmarks compare its
training step with this loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from gan_ablate.design.config import RunConfig
from gan_ablate.training.data import load_dataset
from gan_ablate.training.step import Network


class Networks(NamedTuple):
    """A generator from latents to images, and a discriminator from images to probabilities."""

    generator: nn.Sequential
    discriminator: nn.Sequential


def mlp() -> Networks:
    return Networks(
        nn.Sequential(
            nn.Linear(100, 256), nn.ReLU(True), nn.Linear(256, 512), nn.ReLU(True), nn.Linear(512, 784), nn.Tanh(),
            nn.Unflatten(1, (1, 28, 28)),
        ),
        nn.Sequential(
            nn.Flatten(), nn.Linear(784, 512), nn.ReLU(True), nn.Linear(512, 256), nn.ReLU(True),
            nn.Linear(256, 1), nn.Sigmoid(),
        ),
    )  # fmt: skip


def dcgan_28() -> Networks:
    return Networks(
        nn.Sequential(
            nn.Linear(100, 64 * 7 * 7, bias=False), nn.Unflatten(1, (64, 7, 7)), nn.BatchNorm2d(64), nn.ReLU(True),
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(True),
            nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Tanh(),
        ),
        nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1), nn.LeakyReLU(0.2, True),
            nn.Conv2d(32, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.LeakyReLU(0.2, True),
            nn.Flatten(), nn.Linear(64 * 7 * 7, 1), nn.Sigmoid(),
        ),
    )  # fmt: skip


def dcgan_upsample() -> Networks:
    return Networks(
        nn.Sequential(
            nn.Linear(100, 128 * 8 * 8), nn.Unflatten(1, (128, 8, 8)), nn.BatchNorm2d(128),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 128, 3, 1, 1), nn.BatchNorm2d(128, 0.8), nn.LeakyReLU(0.2, True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 64, 3, 1, 1), nn.BatchNorm2d(64, 0.8), nn.LeakyReLU(0.2, True),
            nn.Conv2d(64, 1, 3, 1, 1), nn.Tanh(),
        ),
        nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.LeakyReLU(0.2, True), nn.Dropout2d(0.25),
            nn.Conv2d(16, 32, 3, 2, 1), nn.LeakyReLU(0.2, True), nn.Dropout2d(0.25), nn.BatchNorm2d(32, 0.8),
            nn.Conv2d(32, 64, 3, 2, 1), nn.LeakyReLU(0.2, True), nn.Dropout2d(0.25), nn.BatchNorm2d(64, 0.8),
            nn.Conv2d(64, 128, 3, 2, 1), nn.LeakyReLU(0.2, True), nn.Dropout2d(0.25), nn.BatchNorm2d(128, 0.8),
            nn.Flatten(), nn.Linear(128 * 2 * 2, 1), nn.Sigmoid(),
        ),
    )  # fmt: skip


def dcgan_64() -> Networks:
    return Networks(
        nn.Sequential(
            nn.Unflatten(1, (100, 1, 1)),
            nn.ConvTranspose2d(100, 1024, 4, 1, 0, bias=False), nn.BatchNorm2d(1024), nn.ReLU(True),
            nn.ConvTranspose2d(1024, 512, 4, 2, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU(True),
            nn.ConvTranspose2d(512, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(True),
            nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(True),
            nn.ConvTranspose2d(128, 1, 4, 2, 1), nn.Tanh(),
        ),
        nn.Sequential(
            nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.2, True),
            nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.LeakyReLU(0.2, True),
            nn.Conv2d(128, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.LeakyReLU(0.2, True),
            nn.Conv2d(256, 512, 4, 2, 1, bias=False), nn.BatchNorm2d(512), nn.LeakyReLU(0.2, True),
            nn.Conv2d(512, 1, 4, 2, 0), nn.Flatten(), nn.Sigmoid(),
        ),
    )  # fmt: skip


def mlp_dropout() -> Networks:
    return Networks(
        nn.Sequential(
            nn.Linear(100, 256), nn.LeakyReLU(0.2, True), nn.Linear(256, 512), nn.LeakyReLU(0.2, True),
            nn.Linear(512, 1024), nn.LeakyReLU(0.2, True), nn.Linear(1024, 784), nn.Tanh(),
            nn.Unflatten(1, (1, 28, 28)),
        ),
        nn.Sequential(
            nn.Flatten(), nn.Linear(784, 1024), nn.LeakyReLU(0.2, True), nn.Dropout(0.3),
            nn.Linear(1024, 512), nn.LeakyReLU(0.2, True), nn.Dropout(0.3),
            nn.Linear(512, 256), nn.LeakyReLU(0.2, True), nn.Dropout(0.3),
            nn.Linear(256, 1), nn.Sigmoid(),
        ),
    )  # fmt: skip


def dcgan_fc() -> Networks:
    return Networks(
        nn.Sequential(
            nn.Linear(100, 256 * 7 * 7), nn.ReLU(True), nn.Unflatten(1, (256, 7, 7)),
            nn.ConvTranspose2d(256, 128, 4, 2, 1), nn.ReLU(True), nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.ReLU(True),
            nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh(),
        ),
        nn.Sequential(
            nn.Conv2d(1, 64, 4, 2, 1), nn.ReLU(True), nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU(True),
            nn.Conv2d(128, 256, 4, 2, 1), nn.ReLU(True),
            nn.Flatten(), nn.Linear(256 * 7 * 7, 1), nn.Sigmoid(),
        ),
    )  # fmt: skip


def dcgan_faces(width: int, num_channels: int = 1) -> Networks:
    """Build the best-known DCGAN: its authors' width is 64, the document's is 100, and its images are in colour."""
    return Networks(
        nn.Sequential(
            nn.Unflatten(1, (100, 1, 1)),
            nn.ConvTranspose2d(100, 8 * width, 4, 1, 0, bias=False), nn.BatchNorm2d(8 * width), nn.ReLU(True),
            nn.ConvTranspose2d(8 * width, 4 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * width), nn.ReLU(True),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(True),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True),
            nn.ConvTranspose2d(width, num_channels, 4, 2, 1, bias=False), nn.Tanh(),
        ),
        nn.Sequential(
            nn.Conv2d(num_channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2, True),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(4 * width), nn.LeakyReLU(0.2, True),
            nn.Conv2d(4 * width, 8 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(8 * width), nn.LeakyReLU(0.2, True),
            nn.Conv2d(8 * width, 1, 4, 1, 0, bias=False), nn.Flatten(), nn.Sigmoid(),
        ),
    )  # fmt: skip


def dcgan_paper(num_channels: int = 1) -> Networks:
    return Networks(
        nn.Sequential(
            nn.Linear(100, 1024 * 4 * 4, bias=False), nn.Unflatten(1, (1024, 4, 4)),
            nn.BatchNorm2d(1024), nn.ReLU(True),
            nn.ConvTranspose2d(1024, 512, 4, 2, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU(True),
            nn.ConvTranspose2d(512, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(True),
            nn.ConvTranspose2d(256, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(True),
            nn.ConvTranspose2d(128, num_channels, 4, 2, 1, bias=False), nn.Tanh(),
        ),
        nn.Sequential(
            nn.Conv2d(num_channels, 128, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True),
            nn.Conv2d(128, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.LeakyReLU(0.2, True),
            nn.Conv2d(256, 512, 4, 2, 1, bias=False), nn.BatchNorm2d(512), nn.LeakyReLU(0.2, True),
            nn.Conv2d(512, 1024, 4, 2, 1, bias=False), nn.BatchNorm2d(1024), nn.LeakyReLU(0.2, True),
            nn.Flatten(), nn.Linear(1024 * 4 * 4, 1, bias=False), nn.Sigmoid(),
        ),
    )  # fmt: skip


def write_mnist(root: Path) -> None:
    """Write the embedded digits as the files that torchvision's MNIST reads."""
    data = load_dataset("mnist-10k", 28, root)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for part, images in (("train", data.images), ("t10k", data.reference)):
        num, _, height, width = images.shape
        header = np.array([0x0803, num, height, width], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
        labels = np.array([0x0801, num], ">i4").tobytes() + bytes(num)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)


def load_batches(root: Path, image_size: int, batch_size: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Read images one by one and transform each, as tutorials do."""
    to_size = [] if image_size == 28 else [transforms.Resize(image_size)]
    transform = transforms.Compose([*to_size, transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    dataset = datasets.MNIST(str(root), train=True, transform=transform)
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True)


def train_plainly(
    networks: Networks,
    batches: Iterable[Sequence[Tensor]],
    config: RunConfig,
    log: IO[str],
    draw: Callable[[Network], Tensor] | None = None,
    device: str = "cpu",
) -> Iterator[None]:
    """Train as tutorials do, without end; each ``next`` is one iteration.

    Args:
        networks: to train.
        batches: of one epoch, with (B, C, H, W) real images first in each sequence.
        config: what tutorials do in different ways: which network learns first, whether G learns from fresh fakes, and
            whether D's two losses are averaged.
        log: receives a line for each iteration.
        draw: samples the latents of the fakes from which a network learns; without it, ``torch.randn`` does.
        device: to train on.
    """
    shape = (config.batch_size, config.latent_dim)
    if draw is None and config.latent_distribution == "uniform":
        draw = lambda _: torch.rand(shape, device=device) * 2 - 1  # noqa: E731
    draw = draw or (lambda _: torch.randn(shape, device=device))
    generator, discriminator = (network.to(device) for network in networks)
    criterion: Callable[[Tensor, Tensor], Tensor] = nn.BCELoss()
    betas = (config.beta1, config.beta2)
    loss_config = config.loss
    assert loss_config.kind == "bce"
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=config.lr_g, betas=betas)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=config.lr_d, betas=betas)

    def update_discriminator(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        optimizer_d.zero_grad()
        output_real, output_fake = discriminator(real), discriminator(fake.detach())
        ones = torch.full((len(real), 1), loss_config.real_label, device=device)
        zeros = torch.zeros(len(real), 1, device=device)
        loss = criterion(output_real, ones) + criterion(output_fake, zeros)
        if loss_config.discriminator_reduction == "mean":
            loss = loss / 2
        loss.backward()
        optimizer_d.step()
        return loss, output_real, output_fake

    def update_generator(fake: Tensor) -> tuple[Tensor, Tensor]:
        optimizer_g.zero_grad()
        output = discriminator(fake)
        loss = criterion(output, torch.full((len(fake), 1), loss_config.generator_label, device=device))
        loss.backward()
        optimizer_g.step()
        return loss, output

    for epoch in itertools.count():
        for iteration, (real, *_) in enumerate(batches):
            real = real.to(device)  # noqa: PLW2901 (as they write it)
            fake = generator(draw("discriminator"))
            if config.update_order == "generator_first":
                loss_g, output = update_generator(fake)
            loss_d, output_real, output_fake = update_discriminator(real, fake)
            if config.generator_fakes == "fresh":
                fake = generator(draw("generator"))
            if config.update_order == "discriminator_first":
                loss_g, output = update_generator(fake)
            print(
                f"[{epoch}][{iteration}] Loss_D: {loss_d.item():.4f} Loss_G: {loss_g.item():.4f} "
                f"D(x): {output_real.mean().item():.4f} "
                f"D(G(z)): {output_fake.mean().item():.4f} / {output.mean().item():.4f}",
                file=log,
            )
            yield
