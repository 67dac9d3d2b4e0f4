"""The objective: the adversarial loss of a run, and the penalty that is added to D's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat

from gan_ablate.design.user_code import OwnLoss, OwnPenalty
from gan_ablate.design.validation import Model, kind_alone


class BCELoss(Model):
    """Binary cross-entropy on logits, the non-saturating GAN loss (arXiv:1406.2661, section 3)."""

    kind: Literal["bce"]
    real_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0
    """D's target for real images; 0.9 is one-sided label smoothing (arXiv:1606.03498, section 3.4)."""
    fake_label: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """D's target for fake images."""
    generator_label: Annotated[float, Field(gt=0.5, le=1)] = 1.0
    """G's target for its own images."""
    discriminator_reduction: Literal["sum", "mean"] = "sum"
    """Whether D's losses on real and on fake images are added up or averaged."""
    computed_from: Literal["logits", "probabilities"] = "logits"
    """BCE on logits, or PyTorch's BCELoss of a sigmoid: in float32 an image costs at most 100, and its gradient is
    zero at logits above 17 and fades below -28."""


class LeastSquaresLoss(Model):
    """Squared distance of D's output from its targets (LSGAN, arXiv:1611.04076, equation 2)."""

    kind: Literal["least_squares"]
    real_label: float = 1.0
    """The paper's b: D's target for real images."""
    fake_label: float = 0.0
    """The paper's a: D's target for fake images."""
    generator_label: float = 1.0
    """The paper's c: G's target for its own images."""


class HingeLoss(Model):
    """D's output above 1 on real images and below -1 on fake ones costs nothing (arXiv:1705.02894, section 4)."""

    kind: Literal["hinge"]


class WassersteinLoss(Model):
    """Difference of D's mean outputs (WGAN, arXiv:1701.07875, equations 2 and 3)."""

    kind: Literal["wasserstein"]
    weight_clip: PositiveFloat | None = None
    """Keeps every weight of D in ± this after each of its steps (arXiv:1701.07875, algorithm 1: 0.01). The authors'
    code clips before each step, so that G meets a D whose last step is not clipped. Without clipping, a gradient
    penalty or spectral norm has to keep D from growing without bound."""


class RelativisticLoss(Model):
    """Each fake is judged beside a real image (RpGAN in R3GAN, arXiv:2501.05441, equation 2), f the logistic loss.

    G compares with real images of the D step beside it; the authors' code gives G a batch of its own.
    """

    kind: Literal["relativistic"]


Loss = Annotated[
    BCELoss | LeastSquaresLoss | HingeLoss | WassersteinLoss | RelativisticLoss | OwnLoss,
    Field(discriminator="kind"),
    BeforeValidator(kind_alone),
]


class NoPenalty(Model):
    """Nothing is added to D's loss."""

    kind: Literal["none"]


class GradientPenalty(Model):
    """Squared distance of D's gradient norm from a target, between real and fake images (WGAN-GP, arXiv:1704.00028)."""

    kind: Literal["gradient"]
    weight: PositiveFloat = 10.0
    """The paper's λ."""
    target: Annotated[float, Field(ge=0)] = 1.0
    """Of the norm: 1 in the paper."""


class R1Penalty(Model):
    """γ / 2 times the squared norm of D's gradient at real images (arXiv:1801.04406, equation 9)."""

    kind: Literal["r1"]
    gamma: PositiveFloat = 10.0
    """The paper's γ, which is twice the ``reg_param`` of its authors' code: theirs leaves out the ½."""


class R1R2Penalty(Model):
    """The same at real and at fake images (arXiv:1801.04406, equations 9 and 10; both in R3GAN, arXiv:2501.05441)."""

    kind: Literal["r1_r2"]
    gamma: PositiveFloat = 10.0
    """The papers' γ, and that of R3GAN's code; twice the ``reg_param`` of the code of arXiv:1801.04406."""


Penalty = Annotated[
    NoPenalty | GradientPenalty | R1Penalty | R1R2Penalty | OwnPenalty,
    Field(discriminator="kind"),
    BeforeValidator(kind_alone),
]
