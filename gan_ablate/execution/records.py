"""Records: what ``record.json`` keeps of a finished run."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from gan_ablate.design.external import AnyConfig
from gan_ablate.design.outcomes import Throughput
from gan_ablate.design.validation import Model
from gan_ablate.scoring.scores import RepresentationScores, Scores


class ScoringRecord(Model):
    """All scores of a run, and how they were computed.

    Attributes:
        num_reference: held-out real images that samples are compared with.
        resolution: pixels of the images' sides.
        final: scores of the generator after the last step, with batch norm's running averages.
        fid_batch_stats: FID of the same generator with each batch's own statistics.
        fid_ema: FID of the moving average of its weights, where the run keeps one.
        floor: scores of real training images.
        sampling_sec: seconds that sampling the images of ``final`` took.
        curve_sec: seconds that FID along training took.
        curve_samples: images of each FID along training: fewer than of ``final``, so the two do not compare.
        curve_steps: the steps at which FID was computed along training.
        curve_train_sec: seconds of training until each of these steps.
        curve_fid: FID at each of these steps.
        oscillation_samples: images of each FID whose oscillation is measured, of the same latents at every step.
        oscillation_steps: the steps in the last half of training at which it was computed; none in old records.
        oscillation_fid: FID at each of these steps.
        best: scores of the weights with the lowest FID along training, where the run keeps them, on other latents than
            the curve's, so that what was lucky on those is not lucky again.
        best_step: the step of these weights.
        representation: scores of what the networks have learnt, where the configuration asks for them.
    """

    extractor: str
    extractor_sha256: str
    num_reference: int
    resolution: int
    final: Scores | None
    fid_batch_stats: float | None = None
    fid_ema: float | None = None
    floor: Scores
    sampling_sec: float = 0.0
    curve_sec: float = 0.0
    curve_samples: int = 0
    curve_steps: list[int] = []
    curve_train_sec: list[float] = []
    curve_fid: list[float] = []
    oscillation_samples: int = 0
    oscillation_steps: list[int] = []
    oscillation_fid: list[float] = []
    best: Scores | None = None
    best_step: int | None = None
    representation: RepresentationScores | None = None


class Record(Model):
    """The record of one run, ``runs/<run_id>/record.json``. The run is over once the file is there.

    Attributes:
        status: ``completed``, ``diverged`` (a result: a loss, weight or pixel is not a finite number) or ``failed``.
        message: the reason why the run is not completed.
        diverged_at: the step at which divergence was found.
        history: column name → values, a row every few steps; see ``gan_ablate.training.trainer.Measurement``.
        throughput: time and memory of a step; None where no step was timed.
        num_parameters_g: trainable parameters of the generator.
        num_parameters_d: trainable parameters of the discriminator.
        weights_sha256: file beside the record → its SHA-256.
        train_sec: seconds in training steps, warm-up included.
        total_sec: seconds of the whole run, scoring included.
        unscored_reason: why there are no scores, where there are none.
        notes: remarks for readers of the report, such as how many images were scored.
    """

    run_id: str
    status: Status
    message: str = ""
    diverged_at: int | None = None
    config: AnyConfig
    dataset_sha256: str = ""
    dataset_origin: str = ""
    history: dict[str, list[float]] = {}
    scoring: ScoringRecord | None = None
    unscored_reason: str = ""
    throughput: Throughput | None = None
    num_parameters_g: int = 0
    num_parameters_d: int = 0
    weights_sha256: dict[str, str] = {}
    train_sec: float = 0.0
    total_sec: float = 0.0
    device: str = "cpu"
    environment: dict[str, str] = {}
    notes: Annotated[tuple[str, ...], Field(strict=False)] = ()


class RunSummary(NamedTuple):
    """What the index of a results folder knows of a run that is over: its status, and the median time of its steps."""

    status: Status
    step_ms: float | None


Status = Literal["completed", "diverged", "failed"]
