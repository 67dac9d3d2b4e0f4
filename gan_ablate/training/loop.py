"""The training loop: train a run from its first step, or from a checkpoint, to its last step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from gan_ablate.training.trainer import MEASURE_EVERY, Measurement, StepTimer, Trainer, capture_state, restore_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from gan_ablate.design.config import RunConfig
    from gan_ablate.training.step import AdversarialStep, DiscriminatorTerms, GeneratorTerms, RealBatch, StepTerms


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes:
        generator: after the last step.
        discriminator: after the last step.
        history: a row every ``MEASURE_EVERY`` steps and after the last one.
        average: the generator with the moving average of its weights, where the run keeps one.
        diverged_at: the step at which a loss, gradient, weight or pixel was found not to be finite, or None.
        timer: the times of all steps.
    """

    generator: nn.Module
    discriminator: nn.Module
    average: nn.Module | None
    history: list[Measurement]
    diverged_at: int | None
    timer: StepTimer


@dataclass(frozen=True)
class TrainingState:
    """Where a training is after ``step`` G steps: all that it needs to go on as if it had never stopped.

    Attributes:
        step: G steps taken.
        tensors: from ``capture_state``.
        history: the rows so far.
        times_ms: what every step took.
        peak_memory_bytes: so far.
    """

    step: int
    tensors: dict[str, Tensor]
    history: list[Measurement]
    times_ms: list[float]
    peak_memory_bytes: int


class Checkpoints(Protocol):
    """What keeps a training's states, and knows where it may go on."""

    def load(self) -> TrainingState | None:
        """Return the state to go on from, or None to begin."""

    def is_due(self, step: int) -> bool:
        """Whether the state after this step is to be kept; asked after every step."""

    def save(self, state: TrainingState) -> None:
        """Keep a state in the place of the one before."""


def train(
    config: RunConfig,
    images: Tensor,
    on_measurement: Callable[[Measurement], None],
    on_snapshot: Callable[[int, nn.Module, StepTimer], bool],
    labels: Tensor | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainResult:
    """Train one run from its beginning, or where it stopped, to its end, or to the step at which it diverges.

    Args:
        config: the run.
        images: (N, C, S, S) uint8 training images, on the device that trains.
        on_measurement: called with every row of the history.
        on_snapshot: called with the step, the generator and the timer, before the first step and then after each of
            ``sheet_steps``, the last of which is the end, and of ``oscillation_steps``. It leaves the generator as it
            was, and returns whether what it drew was finite.
        labels: (N,) int64 the images' classes, on the same device; only conditional runs need them.
        checkpoints: where states are kept; without, none are.
    """
    trainer = Trainer(config, images, labels)
    take_step = choose_step(trainer)
    timer = StepTimer(images.device)
    snapshots = config.sheet_steps | config.oscillation_steps
    state = None if checkpoints is None else checkpoints.load()
    if state is None:
        step, history = 0, list[Measurement]()
        with timer.paused():
            is_finite = on_snapshot(0, trainer.generator, timer)
    else:
        step, history, is_finite = state.step, list(state.history), True
        restore_state(trainer, state.tensors)
        timer.restore(state.times_ms, state.peak_memory_bytes)
    while is_finite and step < config.steps:
        step += 1
        with timer:
            terms = take_step()
        if step % MEASURE_EVERY == 0 or step == config.steps:
            history.append(trainer.measure(step, terms))
            on_measurement(history[-1])
            is_finite = _is_finite(history[-1])
        if step in snapshots:
            with timer.paused():
                is_finite = is_finite and trainer.is_finite() and on_snapshot(step, trainer.generator, timer)
        if checkpoints is not None and is_finite and checkpoints.is_due(step):
            with timer.paused():
                tensors = capture_state(trainer)
                peak = timer.peak_memory_bytes
                checkpoints.save(TrainingState(step, tensors, history, timer.times_ms(), peak))
    diverged_at = None if is_finite else step
    return TrainResult(trainer.generator, trainer.discriminator, trainer.average, history, diverged_at, timer)


def _is_finite(row: Measurement) -> bool:
    values = (row.loss_d, row.loss_g, row.grad_norm_d, row.grad_norm_g)
    return all(abs(value) < float("inf") for value in values)


NUM_EAGER_STEPS = 3
"""Steps before the capture: they create the optimisers' state and choose kernels, which a capture cannot."""


def choose_step(trainer: AdversarialStep) -> Callable[[], StepTerms]:
    """Return how a trainer's steps are taken where it lies: on a GPU as graphs, unless user code takes part."""
    is_graphed = trainer.images.device.type == "cuda" and not trainer.config.user_parts
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
        # A step without a D step, or without its penalty, holds other kernels.
        self._captures: dict[tuple[bool, ...], _Capture] = {}

    def step(self) -> StepTerms:
        """Take one G step and the D steps that go with it; what it returns is overwritten by the next one."""
        batches = self._trainer.next_batches()
        if self._num_eager_steps < NUM_EAGER_STEPS:
            self._num_eager_steps += 1
            return self._step_eagerly(batches)
        kind = tuple(batch.has_penalty for batch in batches)
        if kind not in self._captures:
            self._captures[kind] = self._capture(batches)
        capture = self._captures[kind]
        for captured, batch in zip(capture.batches, batches, strict=True):
            captured.indices.copy_(batch.indices)
        capture.graph.replay()
        for parameter, gradient in capture.gradients:  # where this capture left them, another one's lie elsewhere
            parameter.grad = gradient
        return self._trainer.join_terms(*capture.terms)

    def _step_eagerly(self, batches: list[RealBatch]) -> StepTerms:
        current = torch.cuda.current_stream(self._trainer.images.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            terms = self._trainer.step_on(batches)
        current.wait_stream(self._stream)
        return self._trainer.join_terms(*terms)

    def _capture(self, batches: list[RealBatch]) -> _Capture:
        """Record a step without taking it."""
        graph, captured = torch.cuda.CUDAGraph(), [batch._replace(indices=batch.indices.clone()) for batch in batches]
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
    batches: list[RealBatch]
    terms: tuple[DiscriminatorTerms | None, GeneratorTerms]
    gradients: Sequence[tuple[Tensor, Tensor]]
