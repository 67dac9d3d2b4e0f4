"""A step as a CUDA graph, on a CPU: what a graph does is done by a recorder with the same rules.

A capture writes down operations and the memory that they read and write; a replay repeats the operations on that
memory, and nothing else: no line of Python, no value that Python held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from gan_ablate.training.loop import NUM_EAGER_STEPS, GraphedStep
from gan_ablate.training.step import AdversarialStep, Network
from gan_ablate.training.trainer import Trainer
from tests.configs import make_config, make_images

NUM_STEPS = NUM_EAGER_STEPS + 6
NUM_IMAGES = 20
"""So few that epochs end between two replays, and within a step."""
READS_BACK = (
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::lift_fresh",
)  # fmt: skip
"""What makes the host wait for the device, or brings its numbers there: a capture fails. Copies show on a GPU only."""


class RecordedGraph(TorchDispatchMode):
    """Stands in for ``torch.cuda.CUDAGraph``. Unlike a capture, recording computes: the first replay is that step."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.registered: list[torch.Generator] = []
        self._calls: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self._is_fresh = True

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.registered.append(generator)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        assert func.name() not in READS_BACK
        generator = (kwargs or {}).get("generator")
        # PyTorch hands over another object for the same stream.
        states = [stream.get_state() for stream in self.registered]
        assert generator is None or any(torch.equal(generator.get_state(), state) for state in states)
        result = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        if self._is_fresh:
            self._is_fresh = False
            return
        with torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, result in self._calls:
                memory = set(addresses((args, kwargs)))
                for before, now in zip(tensors(result), tensors(func(*args, **kwargs)), strict=True):
                    if now.untyped_storage().data_ptr() not in memory:
                        before.copy_(now)


def tensors(tree: Any) -> Iterable[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def addresses(tree: Any) -> list[int]:
    return [tensor.untyped_storage().data_ptr() for tensor in tensors(tree)]


@contextmanager
def record(graph: RecordedGraph, stream: object) -> Iterator[None]:
    assert stream is not None
    with graph:
        yield


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the device's two streams too: what one has queued, the other must wait for."""
    of_captures = SimpleNamespace(wait_stream=lambda _: None, is_awaited=True)

    def wait(other: SimpleNamespace) -> None:
        other.is_awaited = True

    @contextmanager
    def queue(stream: SimpleNamespace) -> Iterator[None]:
        stream.is_awaited = False
        yield

    @contextmanager
    def capture(graph: RecordedGraph, stream: SimpleNamespace) -> Iterator[None]:
        stream.is_awaited = False  # it sets the random streams up there
        with record(graph, stream):
            yield

    def replay(graph: RecordedGraph) -> None:
        assert of_captures.is_awaited
        RecordedGraph.replay(graph)

    current = SimpleNamespace(wait_stream=wait)
    monkeypatch.setattr("torch.cuda.CUDAGraph", type("AwaitedGraph", (RecordedGraph,), {"replay": replay}))
    monkeypatch.setattr("torch.cuda.Stream", lambda _: of_captures)
    monkeypatch.setattr("torch.cuda.current_stream", lambda _: current)
    monkeypatch.setattr("torch.cuda.stream", queue)
    monkeypatch.setattr("torch.cuda.graph", capture)


def assert_same_steps(graphed: AdversarialStep, lone: AdversarialStep) -> None:
    step = GraphedStep(graphed)
    for number in range(NUM_STEPS):
        results = []
        for take_step in (step.step, lone.step):
            torch.manual_seed(number)  # dropout
            results.append([term.clone() for term in take_step()])
        assert step._stream.is_awaited  # type: ignore[attr-defined]
        for ours, expected in zip(*results, strict=True):
            assert torch.equal(ours, expected), number
    for ours, expected in ((graphed.generator, lone.generator), (graphed.discriminator, lone.discriminator)):
        for tensor, twin in zip(ours.state_dict().values(), expected.state_dict().values(), strict=True):
            assert torch.equal(tensor, twin)
        for parameter, twin in zip(ours.parameters(), expected.parameters(), strict=True):
            assert parameter.grad is not None
            assert twin.grad is not None
            assert torch.equal(parameter.grad, twin.grad)  # what the history's gradient norms are made of


SMALL: dict[str, Any] = {
    "generator": {"kind": "dcgan", "base_channels": 4},
    "discriminator": {"kind": "dcgan", "base_channels": 4, "dropout": 0.3},
    "batch_size": 8,
}

PLAIN_D: dict[str, Any] = {**SMALL, "discriminator": {"kind": "dcgan", "base_channels": 4, "norm": "none"}}


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("mlp", {"batch_size": 8}),
        ("dcgan-28", SMALL),
        ("dcgan-28", {**SMALL, "d_steps_per_g_step": 2, "generator_fakes": "fresh"}),
        ("dcgan-28", {**SMALL, "d_steps_per_g_step": 2, "update_order": "generator_first"}),
        ("dcgan-28", {**SMALL, "precision": "bf16"}),
        ("dcgan-28", {**SMALL, "generator_gradient": "accumulated", "d_steps_per_g_step": 2}),
        ("dcgan-28", {**SMALL, "loss": {"kind": "bce", "computed_from": "probabilities"}}),
        (
            "dcgan-28",
            {**SMALL, "image_size": 32, "generator": {"kind": "dcgan", "base_channels": 4, "upsample": "nearest"}},
        ),
        ("dcgan-28", {**SMALL, "g_steps_per_d_step": 2}),
        ("dcgan-28", {**SMALL, "optimizer_g": "adamw", "optimizer_d": {"kind": "sgd", "momentum": 0.9}}),
        ("dcgan-28", {**SMALL, "optimizer_g": "rmsprop", "optimizer_d": "rmsprop"}),
        ("dcgan-28", {**SMALL, "clip_grad_norm_g": 0.01, "clip_grad_norm_d": 0.01}),
        ("dcgan-28", {**PLAIN_D, "penalty": {"kind": "r1", "every": 3}, "d_steps_per_g_step": 2}),
        ("dcgan-28", {**SMALL, "ema_decay": 0.9, "ema_rampup": 0.5, "ema_buffers": "copied"}),
        (
            "dcgan-28",
            {
                **SMALL,
                "generator": {"kind": "dcgan", "base_channels": 8, "norm": "pixel", "activation": "silu"},
                "discriminator": {
                    "kind": "dcgan", "base_channels": 8, "norm": "group", "attention": 7, "activation": "gelu",
                    "minibatch_std": True, "minibatch_std_group": 4,
                },
            },
        ),
        ("dcgan-28", {**SMALL, "loss": {"kind": "wasserstein", "weight_clip": 0.01}, "d_steps_per_g_step": 2}),
        ("dcgan-28", {**PLAIN_D, "loss": "wasserstein", "penalty": "gradient"}),
        ("dcgan-28", {**PLAIN_D, "loss": "relativistic", "penalty": "r1_r2", "ema_decay": 0.9}),
        ("dcgan-28", {**PLAIN_D, "loss": "hinge", "augmentation": ("colour", "translation", "cutout")}),
        ("dcgan-28", {**SMALL, "mode_seeking_weight": 1.0, "latent_distribution": "uniform"}),
        ("dcgan-28", {**SMALL, "conditional": True, "num_classes": 10, "generator_fakes": "fresh"}),
        (
            "dcgan-28",
            {
                **SMALL,
                "loss": "least_squares",
                "discriminator": {
                    "kind": "dcgan", "base_channels": 4, "norm": "none", "spectral_norm": True, "minibatch_std": True,
                },
            },
        ),
    ],
)  # fmt: skip
def test_replays_are_the_trainers_own_steps(preset: str, changes: dict[str, Any]) -> None:
    config = make_config(preset, **changes)
    labels = torch.arange(NUM_IMAGES) % 10
    first, second = (Trainer(config, make_images(config, NUM_IMAGES), labels) for _ in range(2))
    assert_same_steps(first, second)
    if first.average is not None and second.average is not None:
        for tensor, twin in zip(first.average.state_dict().values(), second.average.state_dict().values(), strict=True):
            assert torch.equal(tensor, twin)


def test_the_recorder_notices_what_a_graph_would_miss() -> None:
    """A count that Python keeps stands still in replays."""
    config = make_config("mlp", batch_size=8)

    class Counting(Trainer):
        count = 0.0

        def sample_latents(self, network: Network) -> Tensor:
            self.count += 1
            return super().sample_latents(network) * self.count

    with pytest.raises(AssertionError):
        assert_same_steps(
            Counting(config, make_images(config, NUM_IMAGES)), Counting(config, make_images(config, NUM_IMAGES))
        )


def test_a_synchronisation_is_refused() -> None:
    config = make_config("mlp", batch_size=8)

    class Reading(Trainer):
        def sample_latents(self, network: Network) -> Tensor:
            z = super().sample_latents(network)
            assert z.square().sum().item() > 0
            return z

    step = GraphedStep(Reading(config, make_images(config, NUM_IMAGES)))
    for _ in range(NUM_EAGER_STEPS):
        step.step()
    with pytest.raises(AssertionError):
        step.step()
