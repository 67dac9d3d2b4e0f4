"""Disturb a grid as shared machines do, and compare its records with undisturbed ones: ``nox -s chaos``.

In every round the same command is started again until all runs are done. Meanwhile workers and parents are killed,
rival commands run on the same folder, and the disk fills up. Then every record must equal that of an undisturbed run
bit for bit, except for times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import command
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.store import Store
from tests.execution.processes import list_processes, start_run
from tests.execution.untimed import untimed_by_id

GRID = """
title = "Chaos"
base = "dcgan-28"
design = "factorial"
[factors.beta1]
baseline = "0.5"
levels."0.5" = { beta1 = 0.5 }
levels."0.0" = { beta1 = 0.0 }
levels."0.9" = { beta1 = 0.9 }
[factors.smoothing]
baseline = "off"
levels.off = {}
levels.on = { loss.real_label = 0.9 }
[factors.dropout]
baseline = "none"
levels.none = {}
levels.half = { discriminator.dropout = 0.5 }
[budget.smoke]
steps = 60
seeds = 1
num_samples = 1280
[set]
generator.base_channels = 8
discriminator.base_channels = 8
scoring.curve_samples = 1280
scoring.curve_points = 3
"""
DISK_MIB = 64
ACTIONS = ("kill a worker", "kill the parent", "terminate", "interrupt twice", "rival", "fill the disk")


def main(
    *,
    rounds: Annotated[int, typer.Option(help="How often the grid is computed.")] = 10,
    seed: Annotated[int, typer.Option(help="Of what is done when.")] = 0,
) -> None:
    """Disturb a grid in every way, and compare its records with those of one left in peace."""
    num_lost = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "chaos.toml").write_text(GRID)
        expected = _undisturbed(folder)
        print(f"| round | seconds | starts | {' | '.join(ACTIONS)} | done | equal | damaged files |")
        print("|" + "---|" * (len(ACTIONS) + 6))
        for number in range(rounds):
            with _small_disk(folder / f"disk-{number}") as disk:
                row, is_whole = _round(folder, disk, expected, random.Random(f"{seed}/{number}"))
            print(f"| {number + 1} | {row} |", flush=True)
            num_lost += not is_whole
    print("nothing lost" if not num_lost else f"{num_lost} rounds lost something")
    sys.exit(bool(num_lost))


def _undisturbed(folder: Path) -> dict[str, dict[str, Any]]:
    process = _start(folder, folder / "peace")
    if process.wait():
        raise SystemExit((folder / "log.txt").read_text())
    return _records(folder, folder / "peace")


def _records(folder: Path, out: Path) -> dict[str, dict[str, Any]]:
    """Read every record of the grid that is no failure, without its times."""
    store = Store(out)
    planned = plan(load_grid(folder / "chaos.toml"), budget="smoke")
    return untimed_by_id(record for _, _, record in store.records(planned) if record.status != "failed")


def _round(folder: Path, disk: Path, expected: dict[str, dict[str, Any]], rng: random.Random) -> tuple[str, bool]:
    """Start the same command until all runs are done, and disturb it every few seconds."""
    out, counts, num_starts, started_at = disk / "results", Counter[str](), 0, time.monotonic()
    filler = disk / "filler"
    while _num_done(out) < len(expected) and num_starts < 100:
        process = _start(folder, out)
        num_starts += 1
        at_once = num_starts > 30  # else a slow machine would never finish
        while process.poll() is None:
            _wait(process, rng.uniform(2, 12))
            if process.poll() is None and not at_once:
                action = rng.choice(ACTIONS)
                counts[action] += 1
                _do(action, process, folder, out, filler)
        filler.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "gan_ablate", "report", "--out", str(out)], check=True, capture_output=True)
    verified = subprocess.run(
        [sys.executable, "-m", "gan_ablate", "verify", "--out", str(out)], check=False, capture_output=True, text=True
    )
    found = _records(folder, out)
    num_equal = sum(found.get(run_id) == record for run_id, record in expected.items())
    num_damaged = len(verified.stdout.splitlines()) if verified.returncode else 0
    done = " | ".join(str(counts[action]) for action in ACTIONS)
    row = f"{time.monotonic() - started_at:.0f} | {num_starts} | {done} | {len(found)} | {num_equal} | {num_damaged}"
    return row, num_equal == len(expected) and not num_damaged


def _do(action: str, process: subprocess.Popen[str], folder: Path, out: Path, filler: Path) -> None:
    match action:
        case "kill a worker":
            workers = _children(process.pid)
            if workers:
                _send(workers[-1], signal.SIGKILL)
        case "kill the parent":
            process.kill()
        case "terminate":
            process.terminate()
        case "interrupt twice":
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.2)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        case "rival":
            rival = _start(folder, out)
            _wait(rival, 8)
            if rival.poll() is None:
                rival.kill()
            rival.wait()
        case _:
            _fill(filler)
            _wait(process, 3)
            filler.unlink(missing_ok=True)


def _fill(filler: Path) -> None:
    """Write until the disk is full, if it is the small one."""
    if not filler.parent.is_mount():
        return
    with filler.open("wb", buffering=0) as file, suppress(OSError):  # until it is full
        while True:
            file.write(bytes(65_536))


def _start(folder: Path, out: Path) -> subprocess.Popen[str]:
    with (folder / "log.txt").open("ab") as log:
        options = ("--grid", "chaos.toml", "--out", str(out), "--jobs", "2", "--checkpoint-every", "0.2")
        return start_run(folder, *options, stdout=log, stderr=log)


def _num_done(out: Path) -> int:
    store = Store(out)
    return sum(store.is_done(path.name) for path in (out / "runs").glob("*"))


def _children(pid: int) -> list[int]:
    """Return the processes of a command that train: those that the fork server has started."""
    others = (1, os.getpid(), pid)
    return sorted(one.pid for one in list_processes() if one.session == pid and one.parent not in others)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait(process: subprocess.Popen[str], seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


@contextmanager
def _small_disk(place: Path) -> Iterator[Path]:
    """Mount a disk of ``DISK_MIB`` MiB where this user may; else yield a folder, whose disk is not filled."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place)], check=False, capture_output=True
    )
    try:
        yield place
    finally:
        if mounted.returncode == 0:
            time.sleep(2)  # orphans of a killed parent end with their next step
            subprocess.run(["umount", "--lazy", str(place)], check=False)


if __name__ == "__main__":
    command.run(main)
