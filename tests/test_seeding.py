from __future__ import annotations

import hashlib

from gan_ablate.seeding import stream_seed


def test_streams_differ_by_seed_and_by_purpose() -> None:
    seeds = {stream_seed(seed, purpose) for seed in range(50) for purpose in ("latent", "data order", "dropout")}
    assert len(seeds) == 150


def test_a_stream_is_the_same_on_every_machine() -> None:
    expected = int(hashlib.sha256(b"3/latent").hexdigest()[:16], 16) >> 1
    assert stream_seed(3, "latent") == expected
