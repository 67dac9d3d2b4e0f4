"""CUDA graphs: capture a trainer's step and replay it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from gan_ablate.training.step import AdversarialStep, DiscriminatorTerms, GeneratorTerms, StepTerms

NUM_EAGER_STEPS = 3
"""Steps before the capture: they create the optimisers' state and choose kernels, which a capture cannot."""


def choose_step(trainer: AdversarialStep) -> Callable[[], StepTerms]:
    """Return how a trainer's steps are taken where it lies: on a GPU as graphs, unless user code takes part."""
    is_graphed = trainer.images.device.type == "cuda" and not trainer.config.own_parts
    return GraphedStep(trainer).step if is_graphed else trainer.step


class GraphedStep:
    """Takes a trainer's steps on a GPU with a handful of launches each, where the trainer's own take hundreds.

    A small network's kernels take less time than their launches. The graph holds the same kernels and reads weights,
    optimiser state and random streams where the trainer has them, so its steps are the trainer's. Indices of images
    are copied to where the capture read them.

    Args:
        trainer: on a GPU; from now on its steps are taken here.
    """

    def __init__(self, trainer: AdversarialStep) -> None:
        self._trainer = trainer
        # A capture cannot be on the default stream; what the steps before it set up belongs to theirs.
        self._stream = torch.cuda.Stream(trainer.images.device)
        self._num_eager_steps = 0
        # A step without a D step holds other kernels than one with some.
        self._captures: dict[int, _Capture] = {}

    def step(self) -> StepTerms:
        """Take one G step and the D steps that go with it; what it returns is overwritten by the next one."""
        batches = self._trainer.next_batches()
        if self._num_eager_steps < NUM_EAGER_STEPS:
            self._num_eager_steps += 1
            return self._step_eagerly(batches)
        if len(batches) not in self._captures:
            self._captures[len(batches)] = self._capture(batches)
        capture = self._captures[len(batches)]
        for captured, indices in zip(capture.batches, batches, strict=True):
            captured.copy_(indices)
        capture.graph.replay()
        for parameter, gradient in capture.gradients:  # where this capture left them, another one's lie elsewhere
            parameter.grad = gradient
        return self._trainer.join_terms(*capture.terms)

    def _step_eagerly(self, batches: list[Tensor]) -> StepTerms:
        current = torch.cuda.current_stream(self._trainer.images.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            terms = self._trainer.step_on(batches)
        current.wait_stream(self._stream)
        return self._trainer.join_terms(*terms)

    def _capture(self, batches: list[Tensor]) -> _Capture:
        """Record a step without taking it."""
        graph, captured = torch.cuda.CUDAGraph(), [indices.clone() for indices in batches]
        for stream in self._trainer.streams.values():
            graph.register_generator_state(stream)
        with torch.cuda.graph(graph, stream=self._stream):
            terms = self._trainer.step_on(captured)
        # What sets the random streams up for the capture must not come after what sets them up for its first replay.
        torch.cuda.current_stream(self._trainer.images.device).wait_stream(self._stream)
        networks = [self._trainer.generator, *([self._trainer.discriminator] if batches else [])]
        gradients = [(p, p.grad) for network in networks for p in network.parameters() if p.grad is not None]
        return _Capture(graph, captured, terms, gradients)


@dataclass(frozen=True)
class _Capture:
    """A recorded step, where it reads its images' indices, and where it leaves its terms and gradients."""

    graph: torch.cuda.CUDAGraph
    batches: list[Tensor]
    terms: tuple[DiscriminatorTerms | None, GeneratorTerms]
    gradients: Sequence[tuple[Tensor, Tensor]]
