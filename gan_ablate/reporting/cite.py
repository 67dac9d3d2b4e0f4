"""A results folder in, a paragraph for a paper's methods and the references that it needs out."""

from __future__ import annotations

import re
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

from gan_ablate.analysis.results import GridResults
from gan_ablate.design.addressed import PROTOCOL_VERSION
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.reporting.formats import count, escape_latex

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gan_ablate.design.planning import Plan


def cite(out: str | Path) -> str:
    r"""Write how the runs of a results folder were made, scored and compared, for the methods section of a paper.

    Args:
        out: the results folder.

    Returns:
        LaTeX with ``\cite`` commands, and below it the BibTeX entries that they name.

    Raises:
        UserError: if nothing was run into that folder yet.
    """
    store = Store(Path(out))
    every = [GridResults.load(store, name) for name in store.list_plans()]
    every = [results for results in every if results.records]
    if not every:
        raise UserError(f"--out {out}: no run is finished in this folder yet; gan-ablate run --grid NAME does that")
    text = " ".join([_opening(every), *(_grid_sentence(results) for results in every), *_methods(every)])
    bib = resources.files("gan_ablate.reporting").joinpath("references.bib").read_text("utf-8")
    known = {key: entry for entry in bib.split("\n\n") for key in re.findall(r"^@\w+\{(.+?),", entry)}
    cited = [key for keys in re.findall(r"\\cite\{(.+?)\}", text) for key in keys.split(",")]
    return "\n\n".join([text, *(known[key].strip() for key in dict.fromkeys(cited))]) + "\n"


def _opening(every: list[GridResults]) -> str:
    environments = [record.environment for results in every for _, record in results.records]
    versions = {
        name: _all(environment.get(name) for environment in environments)
        for name in ("torch", "torchmetrics", "python", "cpu", "gpu", "revision")
    }
    software = f"gan\\_ablate {metadata.version('gan-ablate')}"
    if versions["revision"]:
        software += f" (commit {versions['revision']})"
    parts = {
        "PyTorch": (versions["torch"], "~\\cite{paszke2019pytorch}"),
        "TorchMetrics": (versions["torchmetrics"], "~\\cite{detlefsen2022torchmetrics}"),
        "Python": (versions["python"], ""),
    }
    used = ", ".join(
        f"{name}{' ' if version else ''}{version}{reference}" for name, (version, reference) in parts.items()
    )
    machine = versions["gpu"] or versions["cpu"]
    return f"All runs were trained and judged with {software}, protocol {PROTOCOL_VERSION}, on {used}" + (
        f", on {escape_latex(machine)}." if machine else "."
    )


def _grid_sentence(results: GridResults) -> str:
    plan, config = results.plan, results.plan.baseline.config
    factors = ", ".join(factor.replace("_", " ") for factor in plan.grid.factors)
    seeds = max(results.runs.groupby("cell")["seed"].nunique())
    kind = ", of a smoke run that answers nothing," if plan.budget == "smoke" else ""
    data = _all(record.dataset_sha256[:12] for _, record in results.records if record.dataset_sha256)
    title, dataset = escape_latex(plan.grid.title), escape_latex(config.dataset)
    steps = f", {config.steps:,} generator steps each" if config.steps else ""
    sentence = (
        f"In \\emph{{{title}}}, {count(len(plan.cells), 'variant')} of a generative adversarial "
        f"network~\\cite{{goodfellow2014gan}} ({_model_words(plan)}; {escape_latex(factors)}; {plan.grid.design}) "
        f"were trained on {dataset} (SHA-256 {data}): {count(len(results.runs), 'run')}{kind} over at most "
        f"{count(seeds, 'seed')}{steps}."
    )
    if not results.scored:
        return f"{sentence} They were not scored."
    scoring = results.scored[0]
    assert scoring.final is not None
    return (
        f"{sentence} Each was scored on {scoring.final.num_samples:,} images against {scoring.num_reference:,} "
        f"held-out real ones, on {scoring.extractor} features (SHA-256 {scoring.extractor_sha256[:12]})."
    )


def _model_words(plan: Plan) -> str:
    return f"preset {plan.grid.base}" if plan.grid.external is None else "a program of our own"


def _methods(every: list[GridResults]) -> Iterable[str]:
    if not any(results.scored for results in every):
        return
    yield (
        "Quality is the Fr\\'echet distance of features (FID)~\\cite{heusel2017fid}, beside it the kernel "
        "distance~\\cite{binkowski2018kid}, and precision and recall~\\cite{kynkaanniemi2019precision}."
    )
    yield (
        "Effects are means over seeds of differences of log FID within a seed: variants of a seed share data order, "
        "latents and random streams. All effects of a grid on one outcome are one family, tested by Holm's "
        "procedure~\\cite{holm1979}, and intervals are adjusted accordingly."
    )
    if any(results.plan.intervals == "sequential" for results in every):
        yield (
            "Where seeds were added after looking at the results, tests and intervals are those of the sequential "
            "$t$ test with a normal mixture~\\cite{lindon2022anytime}, valid at every look."
        )
    if any(results.plan.intervals == "fixed" for results in every):
        yield "Where the number of seeds was settled beforehand, intervals are Student's $t$."


def _all(values: Iterable[str | None]) -> str:
    return " and ".join(dict.fromkeys(value for value in values if value))
