"""What only a GPU can show: its steps are the trainer's own, those of a CPU, and the same every time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gan_ablate
from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import list_presets, load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution import forecast
from gan_ablate.execution.store import Store
from gan_ablate.scoring.extractors import build_extractor
from gan_ablate.training.loop import NUM_EAGER_STEPS, GraphedStep, TrainingState, TrainResult, train
from gan_ablate.training.runtime import reproducible_float32
from gan_ablate.training.step import AdversarialStep, Network
from gan_ablate.training.trainer import Trainer
from tests.configs import make_config, make_images, shipped_variants
from tests.training.test_trainer import MECHANISMS, SMALL

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")]

CUDA = torch.device("cuda", 0)
NUM_IMAGES = 200
"""So few that epochs end between two replays."""
ALL_VARIANTS = {**shipped_variants(), **{f"preset {name}": make_config(name) for name in list_presets()}}


def make_trainer(config: RunConfig, device: torch.device = CUDA) -> Trainer:
    labels = torch.arange(NUM_IMAGES, device=device) % 10
    return Trainer(config, make_images(config, NUM_IMAGES).to(device), labels)


def steps_of(trainer: AdversarialStep, take_step: Callable[[], Any], num: int) -> list[list[Tensor]]:
    """Take steps; return what each left behind, then the weights and gradients at their end."""
    results = []
    with reproducible_float32():
        for number in range(num):
            torch.manual_seed(number)  # dropout
            results.append([term.clone() for term in take_step()])
    for network in (trainer.generator, trainer.discriminator):
        results.append([tensor.clone() for tensor in network.state_dict().values()])
        results.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    return results


def assert_equal_bits(ours: list[list[Tensor]], expected: list[list[Tensor]]) -> None:
    for place, (mine, theirs) in enumerate(zip(ours, expected, strict=True)):
        for tensor, twin in zip(mine, theirs, strict=True):
            torch.testing.assert_close(tensor, twin, rtol=0, atol=0, equal_nan=True, msg=f"place {place}")


@pytest.mark.parametrize("variant", ALL_VARIANTS)
def test_a_graph_takes_the_trainers_own_steps(variant: str) -> None:
    graphed, lone = make_trainer(ALL_VARIANTS[variant]), make_trainer(ALL_VARIANTS[variant])
    num = NUM_EAGER_STEPS + 5
    assert_equal_bits(steps_of(graphed, GraphedStep(graphed).step, num), steps_of(lone, lone.step, num))


@pytest.mark.parametrize("variant", ALL_VARIANTS)
def test_sums_have_a_fixed_order(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice come the same bits, and PyTorch, asked to refuse what it can only do in any order, refuses nothing."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    one, other, strict = (make_trainer(ALL_VARIANTS[variant]) for _ in range(3))
    assert_equal_bits(steps_of(one, one.step, 2), steps_of(other, other.step, 2))
    torch.use_deterministic_algorithms(True)
    try:
        assert steps_of(strict, strict.step, 1)
    finally:
        torch.use_deterministic_algorithms(False)


class DrawnOnTheCpu(Trainer):
    """Latents and places between images are the same, whatever trains."""

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        super().__init__(config, make_images(config, NUM_IMAGES).to(device))
        self._cpu = torch.Generator().manual_seed(0)

    def sample_latents(self, network: Network) -> Tensor:
        z = torch.randn((self.config.batch_size, self.config.latent_dim), generator=self._cpu)
        return z.to(super().sample_latents(network).device)

    def sample_epsilon(self, x: Tensor) -> Tensor:
        return torch.rand((len(x), 1, 1, 1), generator=self._cpu).to(x.device)


ON_BOTH = {**MECHANISMS, "bilinear": {"generator": {"kind": "dcgan", "base_channels": 4, "upsample": "bilinear"}}}
SAME_ON_BOTH = [name for name in ON_BOTH if name not in ("dropout", "augmentation", "classes", "bf16")]
PRESETS_WITHOUT_DROPOUT = [name for name in list_presets() if name not in ("mlp-dropout", "dcgan-upsample")]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [*SAME_ON_BOTH, *PRESETS_WITHOUT_DROPOUT])
def test_a_gpu_comes_to_the_numbers_of_a_cpu(name: str) -> None:
    config = make_config(**{**SMALL, **ON_BOTH[name]}) if name in ON_BOTH else make_config(name, batch_size=8)
    ours, expected = (
        steps_of(trainer, trainer.step, 3)
        for trainer in (DrawnOnTheCpu(config, CUDA), DrawnOnTheCpu(config, torch.device("cpu")))
    )
    for mine, theirs in zip(ours, expected, strict=True):
        for tensor, twin in zip(mine, theirs, strict=True):
            torch.testing.assert_close(tensor.cpu(), twin, rtol=1e-6, atol=1e-7)


class Kept:
    """Keeps the state after one step; a training that is given it goes on there."""

    def __init__(self, step: int, state: TrainingState | None = None) -> None:
        self._step, self.state = step, state

    def load(self) -> TrainingState | None:
        return self.state

    def is_due(self, step: int) -> bool:
        return step == self._step

    def save(self, state: TrainingState) -> None:
        self.state = dataclasses.replace(state, history=list(state.history))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_training_that_goes_on_ends_at_the_same_bits(mechanism: str) -> None:
    config = make_config(**{**SMALL, **MECHANISMS[mechanism], "steps": 20})
    images, labels = make_images(config, NUM_IMAGES).to(CUDA), torch.arange(NUM_IMAGES, device=CUDA) % 10

    def finish(kept: Kept) -> TrainResult:
        with reproducible_float32():
            return train(config, images, lambda _: None, lambda *_: True, labels, kept)

    kept = Kept(11)
    whole = finish(kept)
    torch.rand(7, device=CUDA)
    resumed = finish(Kept(0, kept.state))
    assert resumed.history == whole.history
    for ours, expected in ((resumed.generator, whole.generator), (resumed.discriminator, whole.discriminator)):
        for tensor, twin in zip(ours.state_dict().values(), expected.state_dict().values(), strict=True):
            assert torch.equal(tensor, twin)
    timed = whole.timer.times_ms()
    assert len(timed) == config.steps
    assert min(timed) > 0


def test_a_classifier_sees_on_a_gpu_what_it_sees_on_a_cpu() -> None:
    images = make_images(make_config(), 64)
    ours, expected = (build_extractor("digits", device)(images) for device in (CUDA, torch.device("cpu")))
    torch.testing.assert_close(ours.vectors, expected.vectors, rtol=1e-4, atol=1e-4)


def test_plan_times_each_precision_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "MAX_MEASURING_SEC", 120)
    monkeypatch.setattr(forecast, "WORTH_SAYING", 100.0)  # whatever is measured
    planned, store = plan(load_grid("bn_label_smooth"), budget="smoke", seeds=1), Store(tmp_path)
    notes = forecast.advise_precision([planned], store, None, 1, "cuda", is_asked=True)
    assert [note.split(" a step ")[0] for note in notes] == ["In bfloat16", "In TF32"]
    times = json.loads((store.cache_dir / "precisions.json").read_text("utf-8"))["step_ms"].values()
    assert all(0.05 < ms < 100 for ms in times)


def test_a_grid_runs_scores_and_times_on_a_gpu_the_same_twice(tmp_path: Path) -> None:
    planned = plan(load_grid("bn_label_smooth"), budget="smoke", seeds=1)
    for name, jobs in (("one", 1), ("other", 2)):
        gan_ablate.run_grid(planned, tmp_path / name, gan_ablate.Compute(device="cuda", jobs=jobs))
    for run_id in planned.run_ids:
        one, other = (Store(tmp_path / name).load_record(run_id) for name in ("one", "other"))
        assert one is not None
        assert other is not None
        assert one.status == "completed", one.message
        assert one.environment["gpu"] == torch.cuda.get_device_name(CUDA)
        assert one.throughput is not None
        assert one.throughput.step_ms_median is not None
        assert one.throughput.step_ms_median > 0
        assert 0 < (one.throughput.peak_memory_bytes or 0) < 2**33
        assert one.weights_sha256 == other.weights_sha256
        assert one.history == other.history
        scores = [
            r.scoring.final.model_copy(update={"seconds": 0.0}) for r in (one, other) if r.scoring and r.scoring.final
        ]
        assert len(scores) == 2
        assert scores[0] == scores[1]
