"""Records: what is kept of a finished run, as files hold it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gan_ablate.design.external import AnyConfig
from gan_ablate.design.outcomes import Throughput
from gan_ablate.design.validation import Model
from gan_ablate.scoring.scores import RepresentationScores, Scores


class ScoringRecord(Model):
    """All scores of a run and the protocol they were made with.

    ``final`` judges the generator with batch norm's running averages, ``fid_batch_stats`` with each batch's own
    statistics, ``fid_ema`` the moving average of its weights, if there is one, and ``floor`` real training images.
    ``curve_steps`` and ``curve_fid`` are FID along training, on fewer samples, so they compare with each other but not
    with the final score. ``resolution`` is what the images had when they were drawn. ``sampling_sec`` is what drawing
    the images of ``final`` took, ``curve_sec`` all that FID along training took. ``representation`` is what the
    networks have learnt besides, where that was asked for.
    """

    extractor: str
    extractor_sha256: str
    num_reference: int
    resolution: int
    final: Scores | None
    fid_batch_stats: float | None
    fid_ema: float | None = None
    floor: Scores
    sampling_sec: float
    curve_sec: float
    curve_samples: int
    curve_steps: list[int]
    curve_train_sec: list[float]
    curve_fid: list[float]
    representation: RepresentationScores | None = None


class Record(Model):
    """Everything that one run leaves behind, ``runs/<run_id>/record.json``: its presence means that the run is over.

    Attributes:
        status: ``completed``, ``diverged`` (a result: a loss, weight or pixel stopped being a number) or ``failed``.
        message: why, where it is not completed.
        diverged_at: the step at which divergence was found.
        history: column name → values, a row every few steps; see ``gan_ablate.training.trainer.Measurement``.
        throughput: what a step cost, or None where none was taken.
        num_parameters_g: trainable parameters of the generator.
        num_parameters_d: trainable parameters of the discriminator.
        weights_sha256: file beside the record → its SHA-256.
        train_sec: seconds in training steps, warm-up included.
        total_sec: seconds of the whole run, scoring included.
        unscored_reason: why there are no scores, where there are none.
        notes: what is to be known of the run besides, such as how many of its images were scored.
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


Status = Literal["completed", "diverged", "failed"]
