"""Train a document's loop as it is printed and as it is meant, and score both: ``python -m bench.printed mlp``.

Three documents' loops do not do what they are meant to do. The loop of ``mlp`` detaches the fakes that G learns from,
and gives D the label 1 for fakes too. The noise of ``dcgan-fc`` has a shape that its first layer refuses. The loop of
``dcgan-faces`` does not detach D's fakes, so that G's gradient keeps that of D's loss. All others are printed as meant.
"""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated

import torch
import typer
from torch import Tensor, nn

from bench import command
from bench.plain import Networks, load_batches, train_plainly, write_mnist
from bench.subjects import SUBJECTS
from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import list_presets
from gan_ablate.design.validation import choices
from gan_ablate.errors import UserError
from gan_ablate.scoring.extractors import build_extractor
from gan_ablate.scoring.scorer import Scorer, sample_images, scoring_latents
from gan_ablate.training.data import load_dataset

NUM_SAMPLES = 2_000


def main(
    preset: Annotated[str, typer.Argument(help="The preset that stands for the document.")],
    *,
    iterations: Annotated[int, typer.Option(help="Iterations of either loop.")] = 300,
) -> None:
    """Train a document's loop as it is printed and as it is meant, and score both."""
    if preset not in list_presets():
        raise UserError(f"{preset}: no such preset; {choices(preset, list_presets())}")
    subject = SUBJECTS[preset]
    config = subject.config()
    dataset = load_dataset("mnist-10k", config.image_size, Path())
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as root:
        write_mnist(Path(root))
        scorer = Scorer(dataset, build_extractor("digits", cpu), Path(root))
        for words in ("as printed", "as meant"):
            torch.manual_seed(0)
            networks, log = subject.build_plain(), io.StringIO()
            batches = load_batches(Path(root), config.image_size, config.batch_size)
            if words == "as printed":
                loop = train_as_printed(preset, networks, batches, config, log)
            else:
                loop = train_plainly(networks, batches, config, log)
            try:
                for _ in itertools.islice(loop, iterations):
                    pass
            except RuntimeError as refused:
                print(f"{preset} {words}: {refused}")
                continue
            latents, _ = scoring_latents(config, NUM_SAMPLES)
            fid = scorer.fid(sample_images(networks.generator, latents, cpu))
            print(f"{preset} {words}: FID {fid:.1f} after {iterations:,} iterations")
            print(f"  {log.getvalue().splitlines()[-1]}")


def train_as_printed(
    preset: str, networks: Networks, batches: Iterable[Sequence[Tensor]], config: RunConfig, log: IO[str]
) -> Iterator[None]:
    """Train as the lines of a document do, without end; each ``next`` is one iteration.

    Args:
        preset: of the document.
        networks: of the document.
        batches: of real images, (B, C, H, W) first in each sequence.
        config: of the document.
        log: receives a line for each iteration.

    Raises:
        RuntimeError: if the lines do not run.
    """
    shape = (config.batch_size, config.latent_dim)
    match preset:
        case "mlp":
            return _train_with_detached_fakes(networks, batches, config, log)
        case "dcgan-fc":
            return train_plainly(networks, batches, config, log, lambda _: torch.randn(*shape, 1, 1))
        case "dcgan-faces":
            return train_without_detaching(networks, batches, config, log, lambda: torch.randn(shape))
        case _:
            return train_plainly(networks, batches, config, log)


def _train_with_detached_fakes(
    networks: Networks, batches: Iterable[Sequence[Tensor]], config: RunConfig, log: IO[str]
) -> Iterator[None]:
    generator, discriminator = networks
    criterion = nn.BCELoss()
    betas = (config.beta1, config.beta2)
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=config.lr_g, betas=betas)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=config.lr_d, betas=betas)
    ones = torch.ones(config.batch_size, 1)
    for real, *_ in itertools.chain.from_iterable(itertools.repeat(batches)):
        fake = generator(torch.randn(config.batch_size, config.latent_dim)).detach()
        optimizer_d.zero_grad()
        loss_d = criterion(discriminator(real), ones) + criterion(discriminator(fake), ones)
        loss_d.backward()
        optimizer_d.step()
        fake = generator(torch.randn(config.batch_size, config.latent_dim)).detach()
        optimizer_g.zero_grad()
        loss_g = criterion(discriminator(fake), ones)
        loss_g.backward()
        optimizer_g.step()
        print(f"Loss_D: {loss_d.item():.4f} Loss_G: {loss_g.item():.4f}", file=log)
        yield


def train_without_detaching(
    networks: Networks,
    batches: Iterable[Sequence[Tensor]],
    config: RunConfig,
    log: IO[str],
    draw: Callable[[], Tensor],
) -> Iterator[None]:
    """Train as ``dcgan-faces`` does: the gradient of D's loss stays in G's gradient.

    Args:
        networks: of the document.
        batches: of real images, (B, C, H, W) first in each sequence.
        config: of the document.
        log: receives a line for each iteration.
        draw: samples the latents of the fakes of an iteration.
    """
    generator, discriminator = networks
    criterion = nn.BCELoss()
    betas = (config.beta1, config.beta2)
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=config.lr_g, betas=betas)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=config.lr_d, betas=betas)
    ones, zeros = torch.ones(config.batch_size, 1), torch.zeros(config.batch_size, 1)
    for real, *_ in itertools.chain.from_iterable(itertools.repeat(batches)):
        generator.zero_grad()
        discriminator.zero_grad()
        loss_real = criterion(discriminator(real), ones)
        loss_real.backward()
        fake = generator(draw())
        loss_fake = criterion(discriminator(fake), zeros)
        loss_fake.backward(retain_graph=True)
        optimizer_d.step()
        discriminator.zero_grad()
        loss_g = criterion(discriminator(fake), ones)
        loss_g.backward()
        optimizer_g.step()
        print(f"Loss_D: {(loss_real + loss_fake).item():.4f} Loss_G: {loss_g.item():.4f}", file=log)
        yield


if __name__ == "__main__":
    command.run(main)
