"""Measure how much the retraining of the scoring classifier contributes to FID's variance.

``nox -s extractors -- --grid bn_label_smooth --data-dir DIR`` writes results/extractors.md. A classifier from another
seed has other features, and may order the runs in another way.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors.torch import load_file
from tabulate import tabulate
from torch import Tensor
from torchvision.datasets import MNIST

from bench import command
from bench.assets import train_classifier
from gan_ablate.analysis.estimates import split_variance
from gan_ablate.analysis.families import estimate_effects
from gan_ablate.analysis.results import GridResults
from gan_ablate.atomic_io import write_atomically
from gan_ablate.design.config import RunConfig
from gan_ablate.design.outcomes import percent_change
from gan_ablate.execution.store import GENERATOR_FILE, Store
from gan_ablate.reporting.formats import percent_text
from gan_ablate.scoring.extractors import ClassifierExtractor, FeatureExtractor
from gan_ablate.scoring.metrics import frechet_distance
from gan_ablate.scoring.scorer import sample_images, scoring_latents
from gan_ablate.training.data import load_dataset
from gan_ablate.training.models import build_generator
from gan_ablate.training.runtime import keep_memory

CPU = torch.device("cpu")


def main(
    *,
    data_dir: Annotated[Path, typer.Option(help="torchvision's root of MNIST.")],
    grid: Annotated[str, typer.Option(help="A grid whose runs are finished.")] = "bn_label_smooth",
    out: Annotated[Path, typer.Option(help="The results folder.")] = Path("results"),
    num: Annotated[int, typer.Option(help="Classifiers to train beside the embedded one.")] = 2,
    epochs: Annotated[int, typer.Option(help="Training epochs of each.")] = 8,
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = Path("results/extractors.md"),
) -> None:
    """Retrain the digit classifier, score a grid's generators again with each, and write what changes."""
    keep_memory()
    train, test = (MNIST(data_dir, train=part) for part in (True, False))
    extractors: list[FeatureExtractor] = [ClassifierExtractor("digits", CPU)]
    names = ["embedded"]
    for seed in range(1, num + 1):
        network, accuracy = train_classifier("digits", train, test, epochs, seed)
        extractors.append(ClassifierExtractor("digits", CPU, network))
        names.append(f"retrained, seed {seed} (test accuracy {accuracy:.2%})")
    results = GridResults.load(Store(out), grid)
    write_atomically(to, _report(results, extractors, names))


def _report(results: GridResults, extractors: list[FeatureExtractor], names: list[str]) -> str:
    runs = results.runs.loc[results.runs["status"] == "completed"].reset_index(drop=True)
    config = results.plan.baseline.config
    data = load_dataset(config.dataset, config.image_size, Path())
    references = [extractor(data.reference).vectors for extractor in extractors]
    fid = np.array([_scores(results, str(run_id), extractors, references, data.labels) for run_id in runs["run_id"]])
    shape = len(results.plan.variants), len(results.plan.seeds), len(extractors)
    scores, errors = np.full(shape, np.nan), np.full(shape[:2], np.nan)
    for row, values in zip(runs.to_dict("records"), fid, strict=True):
        place = results.labels.index(row["variant"]), results.plan.seeds.index(row["seed"])
        scores[place], errors[place] = np.log(values), row["fid_sampling_error"]
    split = split_variance(scores, errors)
    shares = split.shares()
    parts = [
        [name, f"{percent_change(math.sqrt(part)):.1f} %", f"{share:.1%}"]
        for name, part, share in (
            ("training seed", split.seed, shares.seed),
            ("choice of the scored images", split.sampling, shares.sampling),
            ("retraining of the extractor", split.extractor, shares.extractor),
        )
    ]
    effects = []
    for i, name in enumerate(names):
        of_extractor = estimate_effects(results.design, runs.assign(fid=fid[:, i]), "fid")
        effects.append([name, *(percent_text(effect.estimate) for effect in of_extractor)])
    titles = [effect.name for effect in estimate_effects(results.design, runs, "fid")]
    lines = [
        "# Does the scoring classifier matter?",
        "",
        f"`nox -s extractors` wrote this page from the {len(runs)} generators of the grid `{results.name}`: the same",
        "images, scored with the embedded classifier and with others that were trained from other seeds. A classifier",
        "that shifts all runs of a variant alike changes no comparison; what counts is how it orders the seeds.",
        "",
        tabulate(parts, ["variance of log FID within a variant", "as a deviation of FID", "share"], tablefmt="github"),
        "",
        "The effects on FID, with 95 % intervals, by each classifier:",
        "",
        tabulate(effects, ["classifier", *titles], tablefmt="github"),
    ]
    return "\n".join(lines) + "\n"


def _scores(
    results: GridResults,
    run_id: str,
    extractors: list[FeatureExtractor],
    references: list[Tensor],
    labels: Tensor | None,
) -> list[float]:
    record = results.store.load_record(run_id)
    assert record is not None
    config = record.config
    assert isinstance(config, RunConfig)
    generator = build_generator(config)
    generator.load_state_dict(load_file(results.store.run_dir(run_id) / GENERATOR_FILE))
    images = sample_images(generator, scoring_latents(config, config.scoring.num_samples, labels)[0], CPU)
    return [
        frechet_distance(reference, extractor(images).vectors)
        for extractor, reference in zip(extractors, references, strict=True)
    ]


if __name__ == "__main__":
    command.run(main)
