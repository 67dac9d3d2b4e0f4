"""A document's training loop as it is printed, beside the loop as it is meant: ``python -m bench.printed mlp``.

Two documents' loops do not do what they are meant to. The MLP's detaches the fakes that G learns from, and gives D the
label 1 for fakes as well; the noise of ``dcgan-fc`` has a shape that its first layer refuses. All others are printed as
they are meant.
"""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
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
from gan_ablate.scoring.features import build_extractor
from gan_ablate.scoring.score import Scorer, sample_images, scoring_latents
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
            train = train_as_printed if words == "as printed" else train_plainly
            try:
                for _ in itertools.islice(train(networks, batches, config, log), iterations):
                    pass
            except RuntimeError as refused:
                print(f"{preset} {words}: {refused}")
                continue
            latents, _ = scoring_latents(config, NUM_SAMPLES)
            fid = scorer.fid(sample_images(networks.generator, latents, cpu))
            print(f"{preset} {words}: FID {fid:.1f} after {iterations:,} iterations")
            print(f"  {log.getvalue().splitlines()[-1]}")


def train_as_printed(
    networks: Networks, batches: Iterable[Sequence[Tensor]], config: RunConfig, log: IO[str]
) -> Iterator[None]:
    """Train as a document's own lines do, for ever; each ``next`` is one iteration.

    Args:
        networks: the document's.
        batches: of real images.
        config: the document's habits; which loop it is shows in its model.
        log: gets a line an iteration.

    Raises:
        RuntimeError: if the lines do not run.
    """
    shape = (config.batch_size, config.latent_dim)
    is_between_linear_layers = config.generator.kind == "dcgan" and config.generator.norm == "none"
    if is_between_linear_layers:
        return train_plainly(networks, batches, config, log, lambda _: torch.randn(*shape, 1, 1))
    if config.discriminator.kind == "mlp" and not config.discriminator.dropout:
        return _train_with_detached_fakes(networks, batches, config, log)
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


if __name__ == "__main__":
    command.run(main)
