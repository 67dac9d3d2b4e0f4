"""Seeds of independent random streams, each derived from a run's seed and a purpose.

The level of a factor is never part of a purpose. So one seed gives every variant the same batches, the same latents and
the same initial weights, and a layer that one variant has and another has not shifts nothing else.
"""

from __future__ import annotations

import hashlib

SCORING_SEED = 0
"""Scoring draws from this seed in every run: all variants are judged on the same latents and the same KID subsets."""


def stream_seed(seed: int, purpose: str) -> int:
    """Derive the 63-bit seed of the stream that serves one purpose.

    Args:
        seed: the run's seed.
        purpose: what the draws are for, such as ``"latent/discriminator"`` or ``"init/generator/stem.linear.weight"``.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
