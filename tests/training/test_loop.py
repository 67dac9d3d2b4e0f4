from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from torch import Tensor, nn

from gan_ablate.training import loop as graphs_module
from gan_ablate.training import step as step_module
from gan_ablate.training.data import take_batch
from gan_ablate.training.loop import TrainResult, train
from gan_ablate.training.losses import discriminator_loss, generator_loss
from gan_ablate.training.models import build_discriminator, build_generator
from gan_ablate.training.runtime import reproducible_float32
from gan_ablate.training.step import StepTerms
from gan_ablate.training.trainer import MEASURE_EVERY, Measurement, Trainer
from gan_ablate.training.updates import build_optimizer
from tests.configs import make_config

if TYPE_CHECKING:
    from gan_ablate.training.trainer import StepTimer

IMAGES = torch.randint(0, 256, (200, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
SMALL = {
    "generator": {"kind": "dcgan", "base_channels": 4},
    "discriminator": {"kind": "dcgan", "base_channels": 4},
    "batch_size": 8,
}


def run(config: Any, snapshots: list[int] | None = None) -> TrainResult:
    def on_snapshot(step: int, generator: nn.Module, timer: StepTimer) -> bool:
        if snapshots is not None:
            snapshots.append(step)
        return True

    return train(config, IMAGES, lambda _: None, on_snapshot)


def parameters(network: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def test_a_step_is_the_textbooks() -> None:
    """Against a loop written out with plain Adam, nothing frozen, for two steps."""
    config = make_config(**SMALL, generator_fakes="reused")
    trainer = Trainer(config, IMAGES)
    reference_g, reference_d = build_generator(config), build_discriminator(config)
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999)) for n in (reference_g, reference_d))
    twin = Trainer(config, IMAGES)
    for _ in range(2):
        terms = trainer.step()
        x_real, z = take_batch(twin.images, twin.next_indices()), twin.sample_latents("discriminator")
        x_fake = reference_g(z)
        loss_d = discriminator_loss(config.loss, reference_d(x_real), reference_d(x_fake.detach()))
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()
        loss_g = generator_loss(config.loss, reference_d(x_fake))
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        torch.testing.assert_close(terms.loss_d, loss_d.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(terms.loss_g, loss_g.detach(), rtol=1e-4, atol=1e-5)


def test_a_step_moves_both_networks_and_leaves_d_trainable() -> None:
    trainer = Trainer(make_config(**SMALL), IMAGES)
    before_g, before_d = parameters(trainer.generator), parameters(trainer.discriminator)
    trainer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before_g, trainer.generator.parameters(), strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(before_d, trainer.discriminator.parameters(), strict=True))
    assert all(p.requires_grad for p in trainer.discriminator.parameters())


def test_the_same_configuration_gives_the_same_bits() -> None:
    config = make_config(**SMALL, steps=5)
    torch.rand(7)  # whatever ran before must not matter
    first = run(config)
    torch.rand(3)
    second = run(config)
    assert first.history == second.history
    pairs = zip(first.generator.parameters(), second.generator.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "change",
    [
        {"loss": {"kind": "bce", "real_label": 0.9}},
        {"generator_fakes": "fresh"},
        {"discriminator": {"kind": "dcgan", "base_channels": 4, "dropout": 0.5}},
        {"discriminator": {"kind": "dcgan", "base_channels": 4, "norm": "none"}},
        {"beta1": 0.9},
    ],
)
def test_variants_of_a_seed_meet_the_same_batches_and_latents(change: dict[str, Any]) -> None:
    baseline, variant = Trainer(make_config(**SMALL), IMAGES), Trainer(make_config(**{**SMALL, **change}), IMAGES)
    for _ in range(3):
        baseline.step()
        variant.step()
    assert torch.equal(baseline.next_indices(), variant.next_indices())
    assert torch.equal(baseline.sample_latents("discriminator"), variant.sample_latents("discriminator"))


def test_dropout_draws_from_the_runs_seed() -> None:
    config = make_config(**{**SMALL, "discriminator": {"kind": "dcgan", "base_channels": 4, "dropout2d": 0.5}})
    first, second = run(config), run(config)
    other = run(config.model_copy(update={"seed": 1}))
    assert first.history == second.history
    assert first.history != other.history


def test_d_steps_come_before_each_g_step() -> None:
    twice = Trainer(make_config(**SMALL, d_steps_per_g_step=2), IMAGES)
    once = Trainer(make_config(**SMALL), IMAGES)
    twice.step()
    once.step()
    once.step()
    assert torch.equal(twice.next_indices(), once.next_indices())


def test_fresh_fakes_leave_the_discriminators_latents_alone() -> None:
    fresh, reused = (Trainer(make_config(**SMALL, generator_fakes=kind), IMAGES) for kind in ("fresh", "reused"))
    first_fresh, first_reused = fresh.step(), reused.step()
    assert torch.equal(first_fresh.loss_d, first_reused.loss_d)
    assert not torch.equal(first_fresh.loss_g, first_reused.loss_g)


def test_history_has_the_discriminators_outputs() -> None:
    trainer = Trainer(make_config(**SMALL), IMAGES)
    trainer.step()
    terms = StepTerms(
        loss_d=torch.tensor(1.5),
        loss_g=torch.tensor(0.5),
        logits_real=torch.tensor([0.0, 100.0]),
        logits_fake_before=torch.tensor([-100.0, 100.0]),
        logits_fake_after=torch.tensor([-100.0, -100.0]),
    )
    row = trainer.measure(7, terms)
    assert (row.step, row.loss_d, row.loss_g) == (7, 1.5, 0.5)
    assert (row.d_real, row.d_fake_before, row.d_fake_after) == pytest.approx((0.75, 0.5, 0.0))
    assert row.accuracy_d == 0.5  # a logit of 0 is not "real": one real and one fake right of four


def test_snapshots_are_spread_evenly_and_the_last_is_the_end() -> None:
    config = make_config(**SMALL, steps=10)
    config = config.model_copy(update={"scoring": config.scoring.model_copy(update={"curve_points": 4})})
    steps: list[int] = []
    result = run(config, steps)
    assert steps == [0, 2, 5, 8, 10]
    assert [row.step for row in result.history] == [10]
    assert len(result.timer.times_ms()) == 10


def test_a_loss_that_is_no_number_ends_the_run_as_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "generator_loss", lambda _, logits, __: logits.mean() * float("nan"))
    result = run(make_config(**SMALL, steps=40))
    assert result.diverged_at == MEASURE_EVERY


def test_a_weight_that_is_no_number_ends_the_run_as_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    finite = Measurement(3, *([0.5] * 8))
    monkeypatch.setattr(Trainer, "measure", lambda *_: finite)
    monkeypatch.setattr(step_module, "generator_loss", lambda _, logits, __: logits.mean() * float("inf"))
    assert run(make_config(**SMALL)).diverged_at == 3


def test_a_huge_learning_rate_is_survived_as_a_result() -> None:
    result = run(make_config(**SMALL, lr_g=1e30, lr_d=1e30, steps=30))
    assert result.diverged_at == 10


def test_generator_first_learns_from_the_discriminator_before_its_update() -> None:
    first, second = (
        Trainer(make_config(**SMALL, update_order=f"{who}_first"), IMAGES) for who in ("generator", "discriminator")
    )
    ahead, behind = first.step(), second.step()
    # The same fakes meet the same D, once as G's teacher and once as what D is about to learn from.
    torch.testing.assert_close(ahead.logits_fake_after, behind.logits_fake_before)
    torch.testing.assert_close(ahead.loss_d, behind.loss_d, rtol=1e-5, atol=1e-6)
    assert not torch.equal(behind.logits_fake_after, behind.logits_fake_before)


def test_generator_first_lets_d_see_the_fakes_that_g_learned_from() -> None:
    trainer = Trainer(make_config(**SMALL, update_order="generator_first"), IMAGES)
    seen: list[Tensor] = []
    trainer.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    trainer.step()
    by_g, real, by_d = seen
    assert torch.equal(by_g, by_d)
    assert not torch.equal(by_g, real)


def test_the_mean_of_d_s_losses_is_half_their_sum() -> None:
    logits = torch.zeros(3), torch.zeros(3)  # log 2 each
    whole, half = (make_config(loss={"kind": "bce", "discriminator_reduction": how}).loss for how in ("sum", "mean"))
    assert discriminator_loss(whole, *logits).item() == pytest.approx(2 * math.log(2))
    assert discriminator_loss(half, *logits).item() == pytest.approx(math.log(2))


def test_bfloat16_rounds_layers_and_leaves_weights_and_losses_in_float32() -> None:
    coarse, fine = (Trainer(make_config(**SMALL, precision=precision), IMAGES) for precision in ("bf16", "fp32"))
    for _ in range(2):
        rounded, exact = coarse.step(), fine.step()
    assert rounded.loss_d.dtype == rounded.logits_real.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in coarse.generator.parameters())
    assert not torch.equal(rounded.logits_real, exact.logits_real)
    torch.testing.assert_close(rounded.loss_d, exact.loss_d, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_steps_alone_may_round_to_tf32(precision: Literal["fp32", "tf32"], monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, backward and the optimiser's step; not what is between steps, such as scoring."""
    seen: list[bool] = []

    def read_flags(*_: object) -> None:
        seen.extend((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))

    with reproducible_float32():
        trainer = Trainer(make_config(**SMALL, precision=precision), IMAGES)
        trainer.discriminator.register_forward_hook(read_flags)
        next(trainer.discriminator.parameters()).register_hook(read_flags)
        for optimizer in (trainer.optimizer_g, trainer.optimizer_d):
            optimizer.register_step_post_hook(read_flags)
        trainer.step()
        assert len(seen) >= 8
        assert set(seen) == {precision == "tf32"}
        seen.clear()
        read_flags()
        assert seen == [False, False]


def test_steps_on_a_gpu_are_graphs_that_adam_agrees_to(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[dict[str, Any]] = []

    def adam(*_: object, **options: Any) -> SimpleNamespace:
        built.append(options)
        return SimpleNamespace()

    graphed = SimpleNamespace(step=lambda: None)
    monkeypatch.setattr(graphs_module, "GraphedStep", lambda _: graphed)
    monkeypatch.setattr("torch.optim.Adam", adam)
    for device, is_graph in (("cpu", False), ("cuda", True)):
        images = SimpleNamespace(device=torch.device(device))
        trainer: Any = SimpleNamespace(images=images, step=lambda: None, config=make_config())
        assert (graphs_module.choose_step(trainer) is graphed.step) == is_graph
        config = make_config()
        build_optimizer(torch.nn.Linear(1, 1), config.optimizer_g, 1e-3, config, torch.device(device))
        assert built[-1]["capturable"] == is_graph
        # User code may do what no graph can record.
        trainer.config = make_config(penalty={"kind": "module", "path": "mine:penalty"})
        assert graphs_module.choose_step(trainer) is trainer.step


def test_variants_with_other_layers_meet_the_same_dropout_masks() -> None:
    """The stream that dropout draws from does not depend on what the networks' constructors drew."""
    places = []
    for channels in (4, 8):
        part = {"kind": "dcgan", "base_channels": 4, "dropout": 0.5}
        Trainer(
            make_config(**{**SMALL, "discriminator": part, "generator": {"kind": "dcgan", "base_channels": channels}}),
            IMAGES,
        )
        places.append(torch.rand(8))
    torch.testing.assert_close(places[0], places[1], rtol=0, atol=0)
