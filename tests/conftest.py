"""Fixtures: a tiny grid, a run context, and full data sets where a machine has them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_ablate.execution.context import RunContext
from gan_ablate.execution.executors import local
from gan_ablate.execution.forecast import Speed
from gan_ablate.scoring import metrics
from gan_ablate.training.runtime import keep_memory
from tests.features import warm
from tests.quick_worker import KID_SUBSETS, serve

keep_memory()

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
"""Full data sets of a development machine; where they are missing, their tests skip."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep matplotlib's list of fonts: each process that a test starts would make it anew, for seconds."""
    if hasattr(config, "cache"):
        os.environ.setdefault("MPLCONFIGDIR", str(config.cache.mkdir("matplotlib")))


def pytest_collection_finish() -> None:
    """Keep what is imported from the collector, which would look through half a million objects again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Give it back: PyTorch's bindings complain at exit of what was not collected."""
    gc.unfreeze()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.getoption("benchmark_only") else None


@pytest.fixture(autouse=True)
def the_same_draws_in_any_order(request: pytest.FixtureRequest) -> None:
    """Start each test of a module that draws from ``RNG`` at the same number: tests run in several processes."""
    rng = getattr(request.module, "RNG", None)
    if rng is not None:
        rng.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture(autouse=True)
def no_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip timing this machine, which takes seconds; `test_forecast` tests it."""
    for place in ("api", "cli.run"):
        monkeypatch.setattr(f"gan_ablate.{place}.calibrate", lambda *_: Speed())
        monkeypatch.setattr(f"gan_ablate.{place}.advise_precision", lambda *_, **__: [])


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    return RunContext(out=str(warm(tmp_path / "results")), data_dir=str(tmp_path / "data"))


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("no full data sets on this machine")
    return SHARED_DATA


@pytest.fixture
def tiny_grid(tmp_path: Path) -> Path:
    """A grid file of two variants whose runs take a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(
        """
        title = "Tiny"
        question = "Does anything work?"
        base = "mlp"

        [factors.smoothing]
        baseline = "off"
        levels.off = {}
        levels.on = { loss.real_label = 0.9 }

        [budget.smoke]
        steps = 10
        seeds = 2
        num_samples = 1280
        curve_samples = 1280
        curve_points = 1
        """,
        "utf-8",
    )
    return path


@pytest.fixture
def float64() -> Iterator[None]:
    """Compute in double precision: two ways that are the same mathematics then agree to many digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def quick_kid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score quickly, here and in worker processes."""
    monkeypatch.setattr(metrics, "KID_SUBSETS", KID_SUBSETS)
    monkeypatch.setattr(local, "serve", serve)


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for the disk: what is synced is safe from a power failure, which no test plays."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace every figure by a pixel, where a test is about words."""
    from tests.reporting.conftest import replace_figures

    replace_figures(monkeypatch)


@pytest.fixture(autouse=True)
def away_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in its temporary folder, with a cache folder there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "COLUMNS", "200")
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path / "cache-home"))
