"""Optimisers, schedules, clipping and averages, against their papers' formulas written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan_ablate.training.trainer import Trainer, capture_state, restore_state
from gan_ablate.training.updates import build_optimizer, rate_factor
from tests.configs import make_config, make_images

NUM_IMAGES = 40
SMALL: dict[str, Any] = {
    "generator": {"kind": "dcgan", "base_channels": 4},
    "discriminator": {"kind": "dcgan", "base_channels": 4, "norm": "none"},
    "batch_size": 6,
}
GRADIENTS = np.array([[0.5, -2.0, 0.0], [1.5, 0.1, -0.3], [-0.7, 0.4, 2.0]])
START = np.array([1.0, -2.0, 3.0])


def make_trainer(**changes: Any) -> Trainer:
    config = make_config(**{**SMALL, **changes})
    return Trainer(config, make_images(config, NUM_IMAGES))


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def adam(gradients: np.ndarray[Any, Any], lr: float, decay: float) -> np.ndarray[Any, Any]:
    """Update by arXiv:1412.6980, algorithm 1, and for weight decay by arXiv:1711.05101, algorithm 2."""
    w, m, v = START.copy(), np.zeros(3), np.zeros(3)
    for t, g in enumerate(gradients, 1):
        m, v = 0.5 * m + 0.5 * g, 0.9 * v + 0.1 * g**2
        w = w - lr * (m / (1 - 0.5**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)) - lr * decay * w
    return w


def rmsprop(gradients: np.ndarray[Any, Any], lr: float) -> np.ndarray[Any, Any]:
    """Update by RMSProp with decay 0.9 and momentum 0.5."""
    w, v, momentum = START.copy(), np.zeros(3), np.zeros(3)
    for g in gradients:
        v = 0.9 * v + 0.1 * g**2
        momentum = 0.5 * momentum + g / (np.sqrt(v) + 1e-8)
        w = w - lr * momentum
    return w


def sgd(gradients: np.ndarray[Any, Any], lr: float, momentum: float, *, nesterov: bool) -> np.ndarray[Any, Any]:
    w, velocity = START.copy(), np.zeros(3)
    for g in gradients:
        velocity = momentum * velocity + g
        w = w - lr * (g + momentum * velocity if nesterov else velocity)
    return w


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("adam", adam(GRADIENTS, 0.1, 0.0)),
        ({"kind": "adamw", "weight_decay": 0.2}, adam(GRADIENTS, 0.1, 0.2)),
        ({"kind": "rmsprop", "decay": 0.9, "momentum": 0.5}, rmsprop(GRADIENTS, 0.1)),
        ("sgd", sgd(GRADIENTS, 0.1, 0.0, nesterov=False)),
        ({"kind": "sgd", "momentum": 0.8}, sgd(GRADIENTS, 0.1, 0.8, nesterov=False)),
        ({"kind": "sgd", "momentum": 0.8, "nesterov": True}, sgd(GRADIENTS, 0.1, 0.8, nesterov=True)),
    ],
    ids=["adam", "adamw", "rmsprop", "sgd", "momentum", "nesterov"],
)
def test_three_updates_are_the_formulas(optimizer: Any, expected: np.ndarray[Any, Any]) -> None:
    network = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.from_numpy(START))
    config = make_config(optimizer_g=optimizer, beta1=0.5, beta2=0.9)
    built = build_optimizer(network, config.optimizer_g, 0.1, config, torch.device("cpu"))
    for gradient in GRADIENTS:
        network.weight.grad = torch.from_numpy(gradient)[None]
        built.step()
    np.testing.assert_allclose(network.weight.detach().numpy()[0], expected, rtol=1e-12)


def test_each_network_has_its_own_optimiser() -> None:
    trainer = make_trainer(optimizer_g={"kind": "rmsprop", "decay": 0.9}, optimizer_d="sgd", lr_g=0.3, lr_d=0.2)
    assert isinstance(trainer.optimizer_g, torch.optim.RMSprop)
    assert isinstance(trainer.optimizer_d, torch.optim.SGD)
    (of_g,), (of_d,) = trainer.optimizer_g.param_groups, trainer.optimizer_d.param_groups
    assert (of_g["lr"], of_g["alpha"], of_d["lr"]) == (0.3, 0.9, 0.2)
    assert of_g["params"] == list(trainer.generator.parameters())


def torch_factors(config: Any) -> list[float]:
    """Return the factors of torch's own schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    schedule, steps = config.lr_schedule, config.steps
    fall: torch.optim.lr_scheduler.LRScheduler
    if schedule.kind == "linear":
        wait = round(schedule.start * steps)
        fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, schedule.final, steps - wait)
        rates = [1.0] * wait
    else:
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, schedule.final)
        rates = []
    while len(rates) < steps:
        rates.append(float(fall.get_last_lr()[0]))
        optimizer.step()
        fall.step()
    return rates


@pytest.mark.parametrize(
    "schedule",
    [
        "linear",
        {"kind": "linear", "start": 0.5, "final": 0.1},
        "cosine",
        {"kind": "cosine", "final": 0.2},
    ],
)
def test_schedules_are_torchs_own(schedule: Any) -> None:
    config = make_config(lr_schedule=schedule, steps=20)
    assert [rate_factor(config, num) for num in range(20)] == pytest.approx(torch_factors(config), rel=1e-12)


def test_warm_up_rises_linearly_to_the_schedule() -> None:
    config = make_config(lr_warmup_steps=4, steps=8)
    assert [rate_factor(config, num) for num in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    cosine = make_config(lr_warmup_steps=4, steps=8, lr_schedule="cosine")
    assert rate_factor(cosine, 1) == pytest.approx(0.5 * (1 + math.cos(math.pi / 8)) / 2)


def test_a_training_takes_the_schedules_rates_and_goes_on_with_them() -> None:
    changes = {"lr_schedule": "linear", "lr_warmup_steps": 2, "steps": 10, "lr_g": 1.0, "lr_d": 0.5}
    trainer = make_trainer(**changes)
    rates = []
    for _ in range(4):
        trainer.step()
        rates.append((trainer.optimizer_g.param_groups[0]["lr"], trainer.optimizer_d.param_groups[0]["lr"]))
    assert rates == [(0.5, 0.25), (0.9, 0.45), (0.8, 0.4), (pytest.approx(0.7), pytest.approx(0.35))]
    resumed = make_trainer(**changes)
    restore_state(resumed, capture_state(trainer))
    resumed.step()
    assert resumed.optimizer_g.param_groups[0]["lr"] == pytest.approx(0.6)


def test_a_constant_rate_is_never_set_anew() -> None:
    trainer = make_trainer()
    trainer.optimizer_g.param_groups[0]["lr"] = 0.125
    trainer.step()
    assert trainer.optimizer_g.param_groups[0]["lr"] == 0.125


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_a_clipped_gradient_has_the_norm_and_the_history_that_before(name: str) -> None:
    field = f"clip_grad_norm_{name[0]}"
    free, clipped = make_trainer(), make_trainer(**{field: 1e-3})
    of_free, of_clipped = (trainer.measure(1, trainer.step()) for trainer in (free, clipped))
    measured = f"grad_norm_{name[0]}"
    if name == "discriminator":  # G's own gradient then comes from another D
        assert getattr(of_clipped, measured) == pytest.approx(getattr(of_free, measured))
    else:
        assert of_clipped == of_free
    network = getattr(clipped, name)
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in network.parameters()))
    assert norm == pytest.approx(1e-3, rel=1e-3)
    other = clipped.generator if name == "discriminator" else clipped.discriminator
    assert math.sqrt(sum(float(p.grad.square().sum()) for p in other.parameters() if p.grad is not None)) > 2e-3


def test_a_gradient_below_the_norm_stays() -> None:
    free, clipped = make_trainer(), make_trainer(clip_grad_norm_g=1e6, clip_grad_norm_d=1e6)
    for _ in range(2):
        free.step()
        clipped.step()
    for mine, theirs in zip(weights(clipped.generator), weights(free.generator), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["r1", "r1_r2"])
def test_a_lazy_penalty_weighs_k_times_as_much_every_kth_step_of_d(kind: str) -> None:
    lazy = make_trainer(penalty={"kind": kind, "gamma": 2.0, "every": 3}, d_steps_per_g_step=2)
    seen: list[bool] = []
    step = lazy._step_discriminator

    def follow(batch: Any, fakes: Any) -> Any:
        number, before = len(seen), capture_state(lazy)
        with_penalty = {"kind": kind, "gamma": 6.0} if number % 3 == 0 else "none"
        twin = make_trainer(penalty=with_penalty, d_steps_per_g_step=2)
        restore_state(twin, before)
        terms = step(batch, fakes)
        twin._step_discriminator(batch._replace(has_penalty=True), fakes)
        for mine, theirs in zip(weights(lazy.discriminator), weights(twin.discriminator), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
        seen.append(batch.has_penalty)
        return terms

    lazy._step_discriminator = follow  # type: ignore[method-assign]
    for _ in range(4):
        lazy.step()
    assert seen == [True, False, False] * 2 + [True, False]


def test_a_lazy_penalty_counts_on_where_a_training_goes_on() -> None:
    changes: dict[str, Any] = {"penalty": {"kind": "r1", "every": 4}, "g_steps_per_d_step": 2}
    trainer, resumed = make_trainer(**changes), make_trainer(**changes)
    for _ in range(7):
        trainer.step()
    restore_state(resumed, capture_state(trainer))
    assert [[b.has_penalty for b in t.next_batches()] for t in (trainer, resumed)] == [[], []]
    assert [[b.has_penalty for b in t.next_batches()] for t in (trainer, resumed)] == [[True], [True]]


@pytest.mark.usefixtures("float64")
def test_an_average_with_ramp_up_is_stylegan2_adas() -> None:
    """The half-life is the smaller of the decay's and a share of the steps so far."""
    trainer = make_trainer(ema_decay=0.9, ema_rampup=0.5)
    expected: list[Tensor] | None = None
    for number in range(30):
        trainer.step()
        half_life = min(math.log(0.5) / math.log(0.9), 0.5 * number)
        decay = 0.5 ** (1 / half_life) if half_life else 0.0
        now = weights(trainer.generator)
        if expected is None:
            expected = now
        expected = [torch.lerp(new, old, decay) for new, old in zip(now, expected, strict=True)]
    assert trainer.average is not None
    for mine, theirs in zip(weights(trainer.average), expected or [], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_buffers_of_an_average_are_copied_where_asked() -> None:
    copied, averaged = make_trainer(ema_decay=0.9, ema_buffers="copied"), make_trainer(ema_decay=0.9)
    for trainer in (copied, averaged):
        for _ in range(3):
            trainer.step()
    assert copied.average is not None
    assert averaged.average is not None
    now, means = copied.generator.state_dict(), copied.average.state_dict()
    for name, _ in copied.generator.named_buffers():
        assert torch.equal(means[name], now[name])
    for name, mean in copied.average.named_parameters():
        assert torch.equal(mean, averaged.average.state_dict()[name])
    name = "stem.norm.running_mean"
    assert not torch.equal(averaged.average.state_dict()[name], averaged.generator.state_dict()[name])


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer_g": "adamw", "optimizer_d": "adamw"},
        {"optimizer_g": "rmsprop", "optimizer_d": "rmsprop", "loss": {"kind": "wasserstein", "weight_clip": 0.01}},
        {"optimizer_g": {"kind": "sgd", "momentum": 0.9}, "optimizer_d": "sgd"},
        {"lr_schedule": "cosine", "lr_warmup_steps": 5, "steps": 20},
        {"clip_grad_norm_g": 1.0, "clip_grad_norm_d": 1.0},
        {"penalty": {"kind": "r1", "every": 16}},
        {"ema_decay": 0.99, "ema_rampup": 0.05, "ema_buffers": "copied"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_twenty_steps_are_finite(changes: dict[str, Any]) -> None:
    trainer = make_trainer(**changes)
    for _ in range(20):
        terms = trainer.step()
    assert all(term.isfinite().all() for term in terms)
    assert trainer.is_finite()


def test_rmsprop_of_wgan_is_its_authors() -> None:
    """``torch.optim.RMSprop(parameters, lr=0.00005)``, as the authors' code has it."""
    trainer = make_trainer(optimizer_g="rmsprop", lr_g=5e-5)
    (theirs,) = torch.optim.RMSprop(nn.Linear(1, 1).parameters(), lr=5e-5).param_groups
    (ours,) = trainer.optimizer_g.param_groups
    names = ("lr", "alpha", "eps", "momentum", "centered", "weight_decay")
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}
