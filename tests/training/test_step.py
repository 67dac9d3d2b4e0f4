"""What a step does beyond the plain loop, against the same written out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_ablate.training.data import select_logits, take_batch
from gan_ablate.training.losses import discriminator_loss
from gan_ablate.training.models import convolutions
from gan_ablate.training.trainer import Trainer
from tests.configs import make_config, make_images

NUM_IMAGES = 40
SMALL: dict[str, Any] = {
    "generator": {"kind": "dcgan", "base_channels": 4},
    "discriminator": {"kind": "dcgan", "base_channels": 4, "norm": "none"},
    "batch_size": 6,
}


def make_trainer(**changes: Any) -> Trainer:
    config = make_config(**{**SMALL, **changes})
    return Trainer(config, make_images(config, NUM_IMAGES), torch.arange(NUM_IMAGES) % 10)


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_where_d_rests_only_g_learns() -> None:
    trainer = make_trainer(g_steps_per_d_step=3)
    moved = []
    for _ in range(6):
        before = weights(trainer.discriminator), weights(trainer.generator)
        terms = trainer.step()
        after = weights(trainer.discriminator), weights(trainer.generator)
        moved.append(not torch.equal(before[0][0], after[0][0]))
        assert not torch.equal(before[1][0], after[1][0])
        assert terms.loss_d.isfinite()
    assert moved == [True, False, False, True, False, False]
    assert trainer.num_steps == 6


# What one G step does, in order: latents are drawn for a network and make fakes of the generator as it is then, and a
# network learns from the last fakes made, D beside the next real images.
SCHEDULES: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"update_order": "discriminator_first", "generator_fakes": "fresh", "d_steps_per_g_step": 2},
        ["draw for discriminator", "D", "draw for discriminator", "D", "draw for generator", "G"],
    ),
    (
        {"update_order": "discriminator_first", "generator_fakes": "reused", "d_steps_per_g_step": 2},
        ["draw for discriminator", "D", "draw for discriminator", "D", "G"],
    ),
    (
        {"update_order": "generator_first", "generator_fakes": "fresh", "d_steps_per_g_step": 2},
        ["draw for generator", "G", "draw for discriminator", "D", "draw for discriminator", "D"],
    ),
    (
        {"update_order": "generator_first", "generator_fakes": "reused", "d_steps_per_g_step": 3},
        ["draw for discriminator", "G", "D", "draw for discriminator", "D", "draw for discriminator", "D"],
    ),
]
RESTING: list[tuple[dict[str, Any], list[str]]] = [
    ({"update_order": "discriminator_first", "generator_fakes": "reused"}, ["draw for generator", "G"]),
    ({"update_order": "discriminator_first", "generator_fakes": "fresh"}, ["draw for generator", "G"]),
    ({"update_order": "generator_first", "generator_fakes": "reused"}, ["draw for discriminator", "G"]),
    ({"update_order": "generator_first", "generator_fakes": "fresh"}, ["draw for generator", "G"]),
]


def name_schedule(value: object) -> str:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else ""


def follow(script: list[str], trainer: Trainer) -> dict[str, Tensor]:
    """Train by plain PyTorch on a trainer's draws, nothing frozen or cut off but what D learns from."""
    generator, discriminator, found = trainer.generator, trainer.discriminator, dict[str, Tensor]()
    x_fake = torch.empty(0)
    for action in script:
        match action:
            case "D":
                x_real = take_batch(trainer.images, trainer.next_indices())
                real, fake = discriminator(x_real), discriminator(x_fake.detach())
                loss = functional.softplus(-real).mean() + functional.softplus(fake).mean()
                trainer.optimizer_d.zero_grad()
                loss.backward()
                trainer.optimizer_d.step()
                found |= {"loss_d": loss, "logits_real": real, "logits_fake_before": fake}
            case "G":
                fake = discriminator(x_fake)
                loss = functional.softplus(-fake).mean()
                gradients = torch.autograd.grad(loss, list(generator.parameters()))
                for parameter, gradient in zip(generator.parameters(), gradients, strict=True):
                    parameter.grad = gradient
                trainer.optimizer_g.step()
                found |= {"loss_g": loss, "logits_fake_after": fake}
            case _:
                x_fake = generator(trainer.sample_latents("generator" if "generator" in action else "discriminator"))
    return found


def assert_same(first: Trainer, second: Trainer) -> None:
    for network in ("generator", "discriminator"):
        ours, theirs = getattr(first, network), getattr(second, network)
        for name, tensor in ours.state_dict().items():
            torch.testing.assert_close(
                tensor, theirs.state_dict()[name], rtol=1e-9, atol=1e-12, msg=f"{network} {name}"
            )
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("changes", "script"), SCHEDULES, ids=name_schedule)
def test_a_step_is_its_schedule_written_out(changes: dict[str, Any], script: list[str]) -> None:
    trainer, twin = make_trainer(**changes), make_trainer(**changes)
    for _ in range(2):
        terms, expected = trainer.step(), follow(script, twin)
        for name, value in terms._asdict().items():
            torch.testing.assert_close(value, expected[name].detach(), rtol=1e-9, atol=1e-12, msg=name)
            assert not value.requires_grad
    assert_same(trainer, twin)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("changes", "script"), RESTING, ids=name_schedule)
def test_extra_generator_steps_use_fresh_fakes_and_keep_ds_terms(changes: dict[str, Any], script: list[str]) -> None:
    trainer, twin = (make_trainer(g_steps_per_d_step=2, **changes) for _ in range(2))
    first = trainer.step()
    twin.step()
    resting, expected = trainer.step(), follow(script, twin)
    for name in ("loss_d", "logits_real", "logits_fake_before"):
        assert torch.equal(getattr(resting, name), getattr(first, name))
    for name in ("loss_g", "logits_fake_after"):
        torch.testing.assert_close(getattr(resting, name), expected[name].detach(), rtol=1e-9, atol=1e-12)
    assert_same(trainer, twin)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"generator_fakes": "fresh", "d_steps_per_g_step": 2}, [False, False, True]),
        ({"generator_fakes": "reused", "d_steps_per_g_step": 2}, [False, True]),
        (
            {"update_order": "generator_first", "generator_fakes": "fresh", "d_steps_per_g_step": 2},
            [True, False, False],
        ),
        ({"update_order": "generator_first", "generator_fakes": "reused", "d_steps_per_g_step": 2}, [True, False]),
    ],
)
def test_only_the_fakes_that_g_learns_from_remember_how_they_were_made(
    changes: dict[str, Any], expected: list[bool]
) -> None:
    trainer, seen = make_trainer(**changes), list[bool]()
    trainer.generator.register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    trainer.step()
    assert seen == expected


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("changes", "share"),
    [({}, 1.0), ({"d_steps_per_g_step": 2}, 1.0), ({"loss": {"kind": "bce", "discriminator_reduction": "mean"}}, 0.5)],
)
def test_an_accumulated_gradient_is_the_sum_of_both_losses_gradients_on_the_same_fakes(
    changes: dict[str, Any], share: float
) -> None:
    """One is of D's loss before its step, the other of G's loss after it."""
    trainer, twin = (make_trainer(generator_gradient="accumulated", **changes) for _ in range(2))
    trainer.step()
    for _ in range(changes.get("d_steps_per_g_step", 1)):
        z = twin.sample_latents("discriminator")
        x_fake = twin.generator(z)
        before = copy.deepcopy(twin.discriminator)
        follow_discriminator(twin, x_fake, share)
    of_d = share * functional.softplus(before(x_fake)).mean()
    of_g = functional.softplus(-twin.discriminator(x_fake)).mean()
    expected = torch.autograd.grad(of_d + of_g, list(twin.generator.parameters()))
    for gradient, parameter in zip(expected, trainer.generator.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


def follow_discriminator(trainer: Trainer, x_fake: Tensor, share: float) -> None:
    """Take a D step by plain PyTorch on given fakes, its loss times ``share``."""
    real, fake = (
        trainer.discriminator(x) for x in (take_batch(trainer.images, trainer.next_indices()), x_fake.detach())
    )
    trainer.optimizer_d.zero_grad()
    (share * (functional.softplus(-real).mean() + functional.softplus(fake).mean())).backward()
    trainer.optimizer_d.step()


def test_clipping_keeps_every_weight_of_d_in_its_bounds() -> None:
    trainer = make_trainer(loss={"kind": "wasserstein", "weight_clip": 0.003}, lr_d=1e-2)
    trainer.step()
    assert max(tensor.max().item() for tensor in weights(trainer.discriminator)) == pytest.approx(0.003)
    assert min(tensor.min().item() for tensor in weights(trainer.discriminator)) == pytest.approx(-0.003)
    assert max(tensor.abs().max().item() for tensor in weights(trainer.generator)) > 0.003


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["gradient", "r1", "r1_r2"])
def test_a_penalty_is_added_to_ds_loss(kind: str) -> None:
    """D's gradient after a step is that of its loss and the weighted penalty, written out."""
    trainer = make_trainer(penalty=kind)
    network, twin = copy.deepcopy(trainer.discriminator), make_trainer(penalty=kind)
    x_real = take_batch(trainer.images, twin.next_indices())
    x_fake = twin.generator(twin.sample_latents("discriminator")).detach()
    loss = discriminator_loss(trainer.config.loss, network(x_real), network(x_fake))
    if kind == "gradient":
        between = x_fake + twin.sample_epsilon(x_real) * (x_real - x_fake)
        loss = loss + 10 * (norms(network, between) - 1).square().mean()
    else:
        loss = loss + 10 / 2 * norms(network, x_real).square().mean()
        if kind == "r1_r2":
            loss = loss + 10 / 2 * norms(network, x_fake).square().mean()
    loss.backward()
    trainer.step()
    for expected, actual in zip(network.parameters(), trainer.discriminator.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-9, atol=1e-12)


def norms(network: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    lengths: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return lengths


def test_the_average_is_that_of_all_weights_so_far() -> None:
    trainer = make_trainer(ema_decay=0.8)
    history = []
    for _ in range(5):
        trainer.step()
        history.append({name: tensor.double() for name, tensor in trainer.generator.state_dict().items()})
    shares = torch.tensor([0.2 * 0.8**age for age in range(4, -1, -1)], dtype=torch.float64)
    shares /= shares.sum()
    assert trainer.average is not None
    for name, tensor in trainer.average.state_dict().items():
        if tensor.is_floating_point():
            expected = sum(share * state[name] for share, state in zip(shares, history, strict=True))
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-4, atol=1e-6)


def test_the_average_changes_no_training() -> None:
    with_average, without = make_trainer(ema_decay=0.9), make_trainer()
    for _ in range(3):
        with_average.step()
        without.step()
    for mine, theirs in zip(weights(with_average.generator), weights(without.generator), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("head", ["linear", "conv", "average_pool"])
def test_conditional_d_depends_on_the_class(head: str) -> None:
    changes = {"discriminator": {"kind": "dcgan", "base_channels": 4, "norm": "none", "head": head}}
    trainer = make_trainer(conditional=True, num_classes=10, **changes)
    x = take_batch(trainer.images, torch.arange(6))
    outputs = trainer.discriminator(x)
    assert outputs.shape == (6, 11)
    classes = trainer.classes_of(torch.arange(6))
    assert classes is not None
    expected = [outputs[i, 0] + outputs[i, 1 + i] for i in range(6)]
    torch.testing.assert_close(select_logits(outputs, classes), torch.stack(expected))
    assert trainer.step().logits_real.shape == (6,)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("matching_aware", [True, False])
def test_a_matching_aware_d_rejects_real_images_of_another_class(*, matching_aware: bool) -> None:
    """D's gradient is that of the paper's sum, in which fakes and mismatched pairs count half each."""
    classes = {"conditional": True, "num_classes": 10, "matching_aware": matching_aware}
    trainer, twin = make_trainer(**classes), make_trainer(**classes)
    network, indices = twin.discriminator, twin.next_indices()
    right = twin.classes_of(indices)
    assert right is not None
    z = twin.sample_latents("discriminator")
    outputs, outputs_fake = network(take_batch(trainer.images, indices)), network(twin.generator(z).detach())
    real, fake = select_logits(outputs, right), select_logits(outputs_fake, z[:, 100:])
    loss = functional.softplus(-real).mean()
    if matching_aware:
        wrong = select_logits(outputs, twin.sample_other_classes(right))
        loss = loss + (functional.softplus(wrong).mean() + functional.softplus(fake).mean()) / 2
    else:
        loss = loss + functional.softplus(fake).mean()
    loss.backward()
    assert trainer.step().loss_d.item() == pytest.approx(loss.item(), rel=1e-12)
    for expected, actual in zip(network.parameters(), trainer.discriminator.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-9, atol=1e-12)


def test_wrong_classes_are_uniform_and_never_the_right_one() -> None:
    trainer = make_trainer(conditional=True, num_classes=10)
    own = torch.eye(10)
    counts = torch.stack([trainer.sample_other_classes(own) for _ in range(900)]).sum(0)
    assert counts.diagonal().tolist() == [0.0] * 10
    assert counts.sum(1).tolist() == [900.0] * 10
    assert (counts + 100 * own - 100).abs().max() < 45  # 100 each, give or take 4.5 standard deviations


def test_a_conditional_g_is_told_the_class_and_asked_for_classes_as_frequent_as_the_images() -> None:
    trainer = make_trainer(conditional=True, num_classes=10)
    z = torch.cat([trainer.sample_latents("generator") for _ in range(200)])
    assert z.shape == (1_200, 110)
    assert torch.equal(z[:, 100:].sum(1), torch.ones(1_200))
    assert z[:, 100:].mean(0).sub(0.1).abs().max() < 0.05
    x = trainer.generator.eval()(torch.cat((torch.zeros(10, 100), torch.eye(10)), 1))
    assert (x[0] - x[1]).abs().max() > 0


def test_uniform_latents_fill_their_range() -> None:
    z = torch.cat([make_trainer(latent_distribution="uniform").sample_latents("generator") for _ in range(3)])
    assert -1 <= z.min() < -0.98
    assert 0.98 < z.max() <= 1


def test_augmentation_meets_real_and_fake_images_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(augmentation=("translation",), d_steps_per_g_step=2)
    seen: list[Tensor] = []
    original = trainer.augment
    monkeypatch.setattr(trainer, "augment", lambda x: seen.append(x) or original(x))  # type: ignore[func-returns-value]
    trainer.step()
    assert len(seen) == 2 * 2 + 1  # real and fake for each D step, and G's fakes


def test_relativistic_g_sees_the_real_images_of_ds_last_step() -> None:
    trainer = make_trainer(loss="relativistic")
    terms = trainer.step()
    x_real = take_batch(trainer.images, make_trainer().next_indices())
    with torch.no_grad():
        logits_real = trainer.discriminator(x_real)
    expected = functional.softplus(logits_real - terms.logits_fake_after).mean()
    torch.testing.assert_close(terms.loss_g, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("order", "expected"), [("discriminator_first", 1), ("generator_first", 0)])
def test_relativistic_g_sees_the_real_images_of_the_d_step_beside_it(order: str, expected: int) -> None:
    """D's last where it goes first, D's first where G does."""
    changes = {"loss": "relativistic", "update_order": order, "d_steps_per_g_step": 2}
    trainer, twin = make_trainer(**changes), make_trainer(**changes)
    x_real = take_batch(twin.images, [twin.next_indices() for _ in range(2)][expected])
    terms = trainer.step()
    teacher = trainer.discriminator if order == "discriminator_first" else twin.discriminator
    loss_g = functional.softplus(teacher(x_real) - terms.logits_fake_after).mean()
    torch.testing.assert_close(terms.loss_g, loss_g.detach())


@pytest.mark.usefixtures("float64")
def test_mode_seeking_adds_to_gs_loss_what_images_that_are_alike_cost() -> None:
    """G's gradient is that of its loss and of the weighted inverse of how far images are apart for their latents."""
    changes = {"mode_seeking_weight": 0.7, "update_order": "generator_first"}
    trainer, twin = make_trainer(**changes), make_trainer(**changes)
    z = twin.sample_latents("discriminator")
    x = twin.generator(z)
    adversarial = functional.softplus(-twin.discriminator(x)).mean()
    apart = (x[:3] - x[3:]).abs().mean() / (z[:3] - z[3:]).abs().mean()
    (adversarial + 0.7 / (apart + 1e-5)).backward()
    torch.testing.assert_close(trainer.step().loss_g, adversarial.detach())
    for expected, actual in zip(twin.generator.parameters(), trainer.generator.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_conditional_d_gets_the_classes_that_g_got() -> None:
    changes = {"conditional": True, "num_classes": 10, "update_order": "generator_first"}
    trainer, twin = make_trainer(**changes), make_trainer(**changes)
    z = twin.sample_latents("discriminator")
    outputs = twin.discriminator(twin.generator(z))
    logits = torch.stack([outputs[i, 0] + outputs[i, 1 + int(z[i, 100:].argmax())] for i in range(6)])
    loss = functional.softplus(-logits).mean()
    loss.backward()
    terms = trainer.step()
    torch.testing.assert_close(terms.loss_g, loss.detach())
    torch.testing.assert_close(terms.logits_fake_after, logits.detach())
    for expected, actual in zip(twin.generator.parameters(), trainer.generator.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-9, atol=1e-12)


def test_other_mechanisms_leave_latents_and_batches_alone() -> None:
    """Variants are compared within a seed: on the same latents, in the same order of images."""
    plain = make_trainer()
    others = [
        make_trainer(conditional=True, num_classes=10),
        make_trainer(augmentation=("colour", "cutout")),
        make_trainer(penalty="gradient", ema_decay=0.9),
    ]
    for trainer in (plain, *others):
        trainer.step()
    z, indices = plain.sample_latents("discriminator"), plain.next_indices()
    for trainer in others:
        assert torch.equal(trainer.sample_latents("discriminator")[:, :100], z)
        assert torch.equal(trainer.next_indices(), indices)


@pytest.mark.parametrize(
    "changes",
    [
        {"penalty": "gradient", "loss": "wasserstein"},
        {"penalty": "r1_r2", "loss": "relativistic"},
        {"augmentation": ("colour", "translation"), "mode_seeking_weight": 1.0},
        {"loss": {"kind": "bce", "computed_from": "probabilities"}, "generator_gradient": "accumulated"},
    ],
)
def test_bfloat16_carries_what_is_computed_outside_layers_in_float32(changes: dict[str, Any]) -> None:
    trainer = make_trainer(precision="bf16", **changes)
    dtypes: set[torch.dtype] = set()
    trainer.discriminator.register_forward_pre_hook(lambda _, inputs: dtypes.add(inputs[0].dtype))
    for _ in range(2):
        terms = trainer.step()
    assert dtypes == {torch.float32}
    assert {tensor.dtype for tensor in terms} == {torch.float32}
    exact = make_trainer(**changes)
    exact.step()
    assert not torch.equal(terms.logits_real, exact.step().logits_real)  # in bfloat16 the layers round
    assert trainer.is_finite()


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [{"kind": "none"}, {"kind": "gradient"}, {"kind": "r1"}])
def test_wide_networks_learn_the_same_in_bfloat16_with_gradients_by_patches(
    penalty: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {name: {"kind": "dcgan", "base_channels": 64, "norm": "none"} for name in ("generator", "discriminator")}
    learnt, used = [], []
    for has_amx in (True, False):
        monkeypatch.setattr(convolutions, "has_amx", lambda has_amx=has_amx: has_amx)
        trainer = make_trainer(precision="bf16", penalty=penalty, init="default", **parts)
        before = weights(trainer.discriminator) + weights(trainer.generator)
        terms = [trainer.step() for _ in range(2)]
        after = weights(trainer.discriminator) + weights(trainer.generator)
        learnt.append(torch.cat([(b - a).flatten() for a, b in zip(before, after, strict=True)]))
        used.append(terms[-1])
        assert trainer.is_finite()
    assert not torch.equal(learnt[0], learnt[1])  # patches were cut, and their sums come in another order
    assert torch.nn.functional.cosine_similarity(learnt[0], learnt[1], dim=0) > 0.9
    torch.testing.assert_close(used[0].loss_d, used[1].loss_d, rtol=0.05, atol=0.02)
