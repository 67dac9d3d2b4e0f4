"""How weights are updated: the fields of optimisers and of learning-rate schedules."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from gan_ablate.design.validation import Model, Probability, kind_alone


class Adam(Model):
    """Adam (arXiv:1412.6980, algorithm 1), with the run's ``beta1`` and ``beta2``."""

    kind: Literal["adam"]
    eps: PositiveFloat = 1e-8
    """What joins the root of the mean square."""


class AdamW(Model):
    """Adam whose weight decay is no part of the gradient (arXiv:1711.05101, algorithm 2)."""

    kind: Literal["adamw"]
    eps: PositiveFloat = 1e-8
    """What joins the root of the mean square."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """The share of the learning rate by which weights shrink a step, as in PyTorch."""


class RMSProp(Model):
    """RMSProp (Tieleman and Hinton, Coursera lecture 6.5, 2012), as WGAN was published with (arXiv:1701.07875)."""

    kind: Literal["rmsprop"]
    decay: Probability = 0.99
    """Of the mean square."""
    momentum: Probability = 0.0
    """Of the update."""
    eps: PositiveFloat = 1e-8
    """What joins the root of the mean square."""


class SGD(Model):
    """Stochastic gradient descent, with momentum (Sutskever et al., ICML 2013, equations 1 to 4)."""

    kind: Literal["sgd"]
    momentum: Probability = 0.0
    """Of the update, as in PyTorch: the learning rate multiplies the whole of it."""
    nesterov: bool = False
    """Whether the gradient is taken as of where the momentum leads."""

    @model_validator(mode="after")
    def _check_nesterov(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum; valid: momentum above 0")
        return self


Optimizer = Annotated[Adam | AdamW | RMSProp | SGD, Field(discriminator="kind"), BeforeValidator(kind_alone)]


class ConstantRate(Model):
    """The learning rates stay as they are."""

    kind: Literal["constant"]


class LinearDecay(Model):
    """The learning rates fall linearly, from a share of the steps on to the end."""

    kind: Literal["linear"]
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of the steps before the fall."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The factor after the last step."""


class CosineDecay(Model):
    """The learning rates fall along half a cosine (SGDR, arXiv:1608.03983, equation 5), without restarts."""

    kind: Literal["cosine"]
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The factor after the last step."""


Schedule = Annotated[ConstantRate | LinearDecay | CosineDecay, Field(discriminator="kind"), BeforeValidator(kind_alone)]
