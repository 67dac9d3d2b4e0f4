"""A trainer's step in, the same step as one CUDA graph out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gan_ablate.training.step import AdversarialStep, StepTerms

NUM_EAGER_STEPS = 3
"""Steps before the capture: they create the optimisers' state and choose kernels, which a capture cannot."""


def choose_step(trainer: AdversarialStep) -> Callable[[], StepTerms]:
    """Return how a trainer's steps are taken where it lies: on a GPU as graphs."""
    return GraphedStep(trainer).step if trainer.images.device.type == "cuda" else trainer.step


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
        self._graph = torch.cuda.CUDAGraph()
        # A capture cannot be on the default stream; what the steps before it set up belongs to theirs.
        self._stream = torch.cuda.Stream(trainer.images.device)
        self._num_eager_steps = 0
        self._captured: list[Tensor] = []
        self._terms: StepTerms | None = None

    def step(self) -> StepTerms:
        """Take one G step and the D steps that go with it; what it returns is overwritten by the next one."""
        batches = self._trainer.next_batches()
        if self._num_eager_steps < NUM_EAGER_STEPS:
            self._num_eager_steps += 1
            return self._step_eagerly(batches)
        if self._terms is None:
            self._captured = [indices.clone() for indices in batches]
            self._terms = self._capture()
        for captured, indices in zip(self._captured, batches, strict=True):
            captured.copy_(indices)
        self._graph.replay()
        return self._terms

    def _step_eagerly(self, batches: list[Tensor]) -> StepTerms:
        current = torch.cuda.current_stream(self._trainer.images.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            terms = self._trainer.step_on(batches)
        current.wait_stream(self._stream)
        return terms

    def _capture(self) -> StepTerms:
        """Record a step without taking it."""
        for stream in self._trainer.random_streams():
            self._graph.register_generator_state(stream)
        with torch.cuda.graph(self._graph, stream=self._stream):
            return self._trainer.step_on(self._captured)
