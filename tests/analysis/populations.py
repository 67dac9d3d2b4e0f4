"""Where simulated paired differences come from."""

from __future__ import annotations

import enum
import math

import numpy as np
from numpy.typing import NDArray


class Population(enum.Enum):
    """Where simulated paired differences come from, all with mean 0 and standard deviation 1."""

    NORMAL = "normal"
    HEAVY = "heavy tails (t, 5 degrees of freedom)"
    SKEWED = "skewed (log-normal, σ 0.5)"

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Draw differences."""
        match self:
            case Population.NORMAL:
                return rng.standard_normal(shape)
            case Population.HEAVY:
                return rng.standard_t(5, shape) / math.sqrt(5 / 3)
            case Population.SKEWED:
                variance = (math.exp(0.25) - 1) * math.exp(0.25)
                return (rng.lognormal(0, 0.5, shape) - math.exp(0.125)) / math.sqrt(variance)
