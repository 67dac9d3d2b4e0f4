"""The trainer: an adversarial step that is timed, saved to a checkpoint and restored from one."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from gan_ablate.design.outcomes import Throughput
from gan_ablate.training.runtime import read_streams, release_memory, set_streams
from gan_ablate.training.step import AdversarialStep, DiscriminatorTerms, Network, StepTerms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


MAX_WARM_UP_STEPS = 20
"""The first steps allocate memory, choose kernels and fill caches; they are not what a step costs."""


class StepTimer:
    """A context manager around each step; on a GPU it records events, so that nothing waits for the device.

    Attributes:
        peak_memory_bytes: largest so far; what happens in a pause is left out.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Seconds on the CPU, events on a GPU.
        self._starts: list[Any] = []
        self._ends: list[Any] = []
        self._earlier_ms: list[float] = []
        self.peak_memory_bytes = 0
        _reset_peak_memory(device)

    def restore(self, times_ms: list[float], peak_memory_bytes: int) -> None:
        """Count what was measured before this process took over."""
        self._earlier_ms, self.peak_memory_bytes = list(times_ms), peak_memory_bytes

    def __enter__(self) -> Self:
        self._starts.append(self._now())
        return self

    def __exit__(self, *exception: object) -> None:
        self._ends.append(self._now())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside out of the peak memory: it is not training."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, _peak_memory_bytes(self._device))
        try:
            yield
        finally:
            _reset_peak_memory(self._device)

    def summarise(self, images_per_step: float) -> Throughput | None:
        """Return the percentiles, or None where no step was timed.

        Args:
            images_per_step: real images in one G step's D steps.
        """
        times_ms = self.times_ms()
        if not times_ms:
            return None
        timed = times_ms[min(MAX_WARM_UP_STEPS, len(times_ms) // 4) :]
        p10, median, p90 = (float(value) for value in np.percentile(timed, (10, 50, 90)))
        return Throughput(
            step_ms_median=median,
            step_ms_p10=p10,
            step_ms_p90=p90,
            steps_per_sec=1e3 / median,
            images_per_sec=1e3 / median * images_per_step,
            num_timed_steps=len(timed),
            peak_memory_bytes=self.peak_memory_bytes or _peak_memory_bytes(self._device),
        )

    def total_sec(self) -> float:
        """Seconds spent in steps so far, warm-up included."""
        return sum(self.times_ms()) / 1e3

    def times_ms(self) -> list[float]:
        """Milliseconds of every step so far, in order, warm-up included."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            times = [start.elapsed_time(end) for start, end in zip(self._starts, self._ends, strict=True)]
        else:
            times = [(end - start) * 1e3 for start, end in zip(self._starts, self._ends, strict=True)]
        return self._earlier_ms + times

    def _now(self) -> float | torch.cuda.Event:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        # A worker's second run must not inherit what the first one freed, nor its peak: proc(5), 5 resets the peak
        # resident set size. Where a sandbox forbids it, the peak is that of the whole process.
        release_memory()
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", "ascii")


def _peak_memory_bytes(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory_bytes()


def peak_memory_bytes() -> int:
    """Largest resident set of this process so far, or since the system was asked to forget it; 0 where it is silent."""
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text("ascii").splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) * 1024
    if sys.platform == "win32":
        return 0  # not measured
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


MEASURE_EVERY = 10
"""Steps between two rows of the history: often enough to draw curves, rarely enough to cost nothing."""


@dataclass(frozen=True)
class Measurement:
    """One row of the history, taken after ``step`` generator steps.

    D(x) and D(G(z)) are batch means of D's probability that an image is real. ``accuracy_d`` is the share of a real and
    a fake batch that D got right, in [0, 1]. Gradient norms are Euclidean, over all parameters of a network,
    before clipping.
    """

    step: int
    loss_d: float
    loss_g: float
    d_real: float
    d_fake_before: float
    d_fake_after: float
    accuracy_d: float
    grad_norm_d: float
    grad_norm_g: float


class Trainer(AdversarialStep):
    """A run in training: its adversarial step, and what a history says of it."""

    def measure(self, step: int, terms: StepTerms) -> Measurement:
        """Fetch one row of the history from the device: the loop's only synchronisation."""
        values = torch.stack(
            (
                terms.loss_d,
                terms.loss_g,
                terms.logits_real.sigmoid().mean(),
                terms.logits_fake_before.sigmoid().mean(),
                terms.logits_fake_after.sigmoid().mean(),
                torch.cat((terms.logits_real > 0, terms.logits_fake_before <= 0)).float().mean(),
                self._gradient_norm("discriminator", self.discriminator),
                self._gradient_norm("generator", self.generator),
            )
        )
        return Measurement(step, *values.tolist())

    def _gradient_norm(self, name: Network, network: nn.Module) -> Tensor:
        """Return the norm of a network's last gradient, before clipping."""
        if name in self.norms:
            return self.norms[name]
        return nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])

    def is_finite(self) -> bool:
        """Whether every weight and buffer of both networks is a finite number."""
        tensors = (*self.generator.state_dict().values(), *self.discriminator.state_dict().values())
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


def capture_state(trainer: Trainer) -> dict[str, Tensor]:
    """Copy a trainer's networks, optimisers, data order and the position of every random stream.

    Returns:
        Name → tensor on the CPU, of whatever dtype and shape it has; ``restore_state`` takes them all.
    """
    state = {
        "num_steps": torch.tensor(trainer.num_steps),
        "order/stream": trainer.order.stream.get_state(),
        "order/left": trainer.order.left,
        "stream/global": _global_stream(trainer.images.device),
    }
    if trainer.config.user_parts:  # a user's code may draw from any stream
        state |= {f"process/{name}": position for name, position in read_streams().items()}
    for purpose, stream in trainer.streams.items():
        state[f"stream/{purpose}"] = stream.get_state()
    for name, network in _networks(trainer).items():
        state |= {f"{name}/{key}": value for key, value in network.state_dict().items()}
    if trainer.average is not None:
        state["average_weight"] = trainer.average_weight
    state |= {f"norm/{name}": norm for name, norm in trainer.norms.items()}
    for name, (optimizer, parameters) in _optimizers(trainer).items():
        for number, parameter in enumerate(parameters):
            state |= {f"{name}/{number}/{key}": value for key, value in optimizer.state[parameter].items()}
    if trainer.last_d is not None:  # where D rests, rows of the history tell of its last step again
        state |= {f"last_d/{key}": value for key, value in trainer.last_d._asdict().items()}
        for number, parameter in enumerate(trainer.discriminator.parameters()):
            if parameter.grad is not None:
                state[f"last_d/gradient/{number}"] = parameter.grad
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}


@torch.no_grad()
def restore_state(trainer: Trainer, state: dict[str, Tensor]) -> None:
    """Put a fresh trainer of the same run where another one was.

    Args:
        trainer: before its first step.
        state: from ``capture_state``.

    Raises:
        KeyError: if something is missing in it.
        RuntimeError: if it is of other networks.
    """
    device = trainer.images.device
    trainer.num_steps = int(state["num_steps"])
    trainer.order.stream.set_state(state["order/stream"])
    trainer.order.left = state["order/left"].to(device, copy=True)
    _set_global_stream(device, state["stream/global"])
    if trainer.config.user_parts:
        set_streams(_below(state, "process"))
    for purpose, stream in trainer.streams.items():
        stream.set_state(state[f"stream/{purpose}"])
    for name, network in _networks(trainer).items():
        network.load_state_dict(_below(state, name))
    if trainer.average is not None:
        trainer.average_weight.copy_(state["average_weight"])
    for clipped, norm in trainer.norms.items():
        norm.copy_(state[f"norm/{clipped}"])
    for name, (optimizer, parameters) in _optimizers(trainer).items():
        for number, parameter in enumerate(parameters):
            optimizer.state[parameter] = {
                key: value.to(device, copy=True) if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
                for key, value in _below(state, f"{name}/{number}").items()
            }
    last_d = {key: value.to(device, copy=True) for key, value in _below(state, "last_d").items() if "/" not in key}
    if last_d:
        trainer.last_d = DiscriminatorTerms(**last_d)
        for number, parameter in enumerate(trainer.discriminator.parameters()):
            gradient = state.get(f"last_d/gradient/{number}")
            if gradient is not None:
                parameter.grad = torch.empty_like(parameter).copy_(gradient)


def pack_weights(network: nn.Module) -> bytes:
    """Write a network's state dict as a safetensors file; a tensor of two names is there twice."""
    return save({name: tensor.to("cpu", copy=True).contiguous() for name, tensor in network.state_dict().items()})


def _networks(trainer: Trainer) -> dict[str, nn.Module]:
    networks = {"generator": trainer.generator, "discriminator": trainer.discriminator}
    networks |= {f"own/{number}": module for number, module in enumerate(trainer.user_modules)}
    return networks if trainer.average is None else {**networks, "average": trainer.average}


def _optimizers(trainer: Trainer) -> dict[str, tuple[torch.optim.Optimizer, list[nn.Parameter]]]:
    return {
        "optimizer_g": (trainer.optimizer_g, list(trainer.generator.parameters())),
        "optimizer_d": (trainer.optimizer_d, list(trainer.discriminator.parameters())),
    }


def _below(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")}


def _global_stream(device: torch.device) -> Tensor:
    """PyTorch's own stream, from which dropout draws."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_global_stream(device: torch.device, position: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(position, device)
    else:
        torch.set_rng_state(position)
