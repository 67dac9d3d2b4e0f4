"""What a run minimises: its adversarial loss, and what is added to D's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat

from gan_ablate.design.validation import Model, kind_alone


class BCELoss(Model):
    """Binary cross-entropy on logits, the non-saturating GAN loss (arXiv:1406.2661, section 3).

    ``real_label`` and ``fake_label`` are D's targets, ``generator_label`` is G's target for its own images. D's losses
    on real and fake images are added up, or averaged.
    """

    kind: Literal["bce"]
    real_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0
    fake_label: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    generator_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0
    discriminator_reduction: Literal["sum", "mean"] = "sum"


class LeastSquaresLoss(Model):
    """Squared distance of D's output from its targets (LSGAN, arXiv:1611.04076, equation 2).

    The targets b of real and a of fake images are D's, c is G's for its own; the paper's 0-1 coding by default.
    """

    kind: Literal["least_squares"]
    real_label: float = 1.0
    fake_label: float = 0.0
    generator_label: float = 1.0


class HingeLoss(Model):
    """D's output above 1 on real images and below -1 on fake ones costs nothing (arXiv:1705.02894, section 4)."""

    kind: Literal["hinge"]


class WassersteinLoss(Model):
    """Difference of D's mean outputs (WGAN, arXiv:1701.07875, equations 2 and 3).

    ``weight_clip`` keeps every weight of D in ±that after each of its steps (algorithm 1; the paper's is 0.01). Without
    it, a gradient penalty or spectral norm has to keep D from growing without bound.
    """

    kind: Literal["wasserstein"]
    weight_clip: PositiveFloat | None = None


class RelativisticLoss(Model):
    """Each fake is judged beside a real image (RpGAN in R3GAN, arXiv:2501.05441, equation 2), f the logistic loss."""

    kind: Literal["relativistic"]


Loss = Annotated[
    BCELoss | LeastSquaresLoss | HingeLoss | WassersteinLoss | RelativisticLoss,
    Field(discriminator="kind"),
    BeforeValidator(kind_alone),
]


class NoPenalty(Model):
    """Nothing is added to D's loss."""

    kind: Literal["none"]


class GradientPenalty(Model):
    """Squared distance of D's gradient norm from ``target`` between real and fake images (arXiv:1704.00028)."""

    kind: Literal["gradient"]
    weight: PositiveFloat = 10.0
    target: Annotated[float, Field(ge=0)] = 1.0


class R1Penalty(Model):
    """``gamma`` / 2 times the squared norm of D's gradient at real images (arXiv:1801.04406, equation 9)."""

    kind: Literal["r1"]
    gamma: PositiveFloat = 10.0


class R1R2Penalty(Model):
    """The same at real and at fake images (arXiv:1801.04406, equations 9 and 10; both in R3GAN, arXiv:2501.05441)."""

    kind: Literal["r1_r2"]
    gamma: PositiveFloat = 10.0


Penalty = Annotated[
    NoPenalty | GradientPenalty | R1Penalty | R1R2Penalty, Field(discriminator="kind"), BeforeValidator(kind_alone)
]
