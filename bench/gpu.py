"""Time the training step of every subject on a GPU, and write results/gpu.md: ``nox -s bench_gpu``.

Three sides take turns: the plain loop, the package's step kernel by kernel, and the same step as one CUDA graph.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from tabulate import tabulate

from bench import command
from bench.plain import write_mnist
from bench.speed import WARM_UP_STEPS, ratio_text, repeat, steps_per_sec
from bench.subjects import SUBJECTS, Step, Subject, as_in_a_run, choose_subjects
from gan_ablate.atomic_io import write_atomically
from gan_ablate.errors import UserError
from gan_ablate.execution.environment import describe_environment
from gan_ablate.training.loop import GraphedStep
from gan_ablate.training.runtime import reproducible_float32

NUM_TURNS = 5
TURN_SEC = 3.0


def main(
    *,
    turns: Annotated[int, typer.Option(help="Turns of each side; medians are taken over them.")] = NUM_TURNS,
    turn_sec: Annotated[float, typer.Option(help="Seconds of a turn.")] = TURN_SEC,
    subject: Annotated[list[str] | None, typer.Option(help="This one only; may be repeated.")] = None,
    device: Annotated[
        str, typer.Option(help="Where; cpu tries the program out, without graphs, and needs --out.")
    ] = "cuda",
    out: Annotated[Path | None, typer.Option(help="Where gpu.md and gpu.json go; by default results.")] = None,
    add: Annotated[bool, typer.Option(help="Keep what gpu.json there has of other models.")] = False,
) -> None:
    """Time every preset's training step on a GPU."""
    if device == "cpu" and out is None:
        raise UserError("--device cpu: its numbers do not belong into results; name another folder with --out")
    if device != "cpu":
        if not torch.cuda.is_available():
            raise UserError(f"--device {device}: there is no GPU here; valid: cpu")
        torch.cuda.set_device(torch.device(device).index or 0)
    out = out or Path("results")
    names = choose_subjects(subject)
    content: dict[str, Any] = {"environment": describe_environment(torch.device(device)), "calls": [], "sides": []}
    if add and (out / "gpu.json").exists():
        content = _keep_others(json.loads((out / "gpu.json").read_text("utf-8")), content["environment"], names)
    content["calls"].append({"turns": turns, "turn_sec": turn_sec, "models": []})
    for name in names:
        sides = time_sides(SUBJECTS[name], device, turns, turn_sec)
        content["calls"][-1]["models"].append(name)
        content["sides"] += sides
        print(_table(sides, "simple"), flush=True)
        write_atomically(out / "gpu.json", json.dumps(content, indent=1) + "\n")
        write_atomically(out / "gpu.md", write_page(content))


def _keep_others(content: dict[str, Any], environment: dict[str, str], names: Sequence[str]) -> dict[str, Any]:
    """Return what an earlier call measured of other models.

    Raises:
        UserError: if that was on another machine.
    """
    for part, value in environment.items():
        if part != "revision" and content["environment"].get(part) != value:
            was = content["environment"].get(part)
            raise UserError(
                f"--add: gpu.json was measured elsewhere ({part} {was!r}, here {value!r}); name another --out"
            )
    for call in content["calls"]:
        call["models"] = [name for name in call["models"] if name not in names]
    return {
        "environment": content["environment"],
        "calls": [call for call in content["calls"] if call["models"]],
        "sides": [row for row in content["sides"] if row["model"] not in names],
    }


def time_sides(subject: Subject, device: str, num_turns: int, turn_sec: float) -> list[dict[str, Any]]:
    """Let the plain loop and the package's step take turns, and return a row for each precision of the package."""
    with tempfile.TemporaryDirectory() as root:
        write_mnist(Path(root))
        sides: dict[str, Step] = {"plain": subject.plain_step(Path(root), device)}
        for precision in ("fp32", "tf32", "bf16"):
            trainer = subject.trainer(device, precision=precision)
            sides[f"kernel by kernel, {precision}"] = as_in_a_run(trainer, trainer.step)
            if device != "cpu":
                trainer = subject.trainer(device, precision=precision)
                sides[f"graph, {precision}"] = as_in_a_run(trainer, GraphedStep(trainer).step)
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for side, step in sides.items():
            with _precision_of(side):
                repeat(step, WARM_UP_STEPS)
        for turn in range(num_turns):
            for side in random.Random(turn).sample(list(sides), len(sides)):
                with _precision_of(side):
                    rates[side].append(steps_per_sec(sides[side], turn_sec, device))
    rows = []
    for precision in ("fp32", "tf32", "bf16"):
        row: dict[str, Any] = {"model": subject.name, "precision": precision, "plain, it/s": median(rates["plain"])}
        for way in ("kernel by kernel", "graph"):
            ours = rates.get(f"{way}, {precision}")
            if ours is not None:
                row |= {f"{way}, it/s": median(ours), f"{way} / plain": ratio_text(ours, rates["plain"])}
        rows.append(row)
    return rows


def _precision_of(side: str) -> AbstractContextManager[None]:
    """Return the context of a side: PyTorch's defaults, with TF32, for the plain loop, and float32 for the package."""
    return nullcontext() if side == "plain" else reproducible_float32()


def write_page(content: dict[str, Any]) -> str:
    """Write the page on the measurements of one call or several."""
    environment = content["environment"]
    host = f"{environment['threads_per_run']} of {environment['cores']} cores of {environment['cpu']}"
    calls = " Then, another time: ".join(
        f"{' · '.join(call['models'])}: medians of {call['turns']} turns of {call['turn_sec']:g} seconds."
        for call in content["calls"]
    )
    return f"""# Speed on a GPU

Training iterations a second on {environment.get("gpu", "no GPU")}, PyTorch {environment["torch"]}, with {host} as host,
against the loop that tutorials print, its networks moved to the device. All sides of a model in turns, in one call.
{calls}

{_table(content["sides"])}

*Kernel by kernel* launches each operation of a step, *graph* launches the step as one CUDA graph, as a run on a GPU
does. Brackets are the range over the turns. The plain loop has PyTorch's defaults, TF32 among them; our float32 has
none.
"""


def _table(rows: Sequence[dict[str, object]], layout: str = "github") -> str:
    """Tabulate numbers with three digits, or with all digits before the point."""
    columns = dict.fromkeys(name for row in rows for name in row)
    cells = [{name: _cell(row.get(name)) for name in columns} for row in rows]
    align = ["left" if isinstance(rows[0].get(name), str) else "right" for name in columns]
    return tabulate(cells, headers="keys", tablefmt=layout, disable_numparse=True, colalign=align)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    command.run(main)
