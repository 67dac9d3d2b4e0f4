"""Features and scores of the embedded digits, computed once a process: tests copy them and save seconds."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch

from gan_ablate.execution.store import Store
from gan_ablate.scoring.extractors import build_extractor
from gan_ablate.scoring.scorer import Scorer, list_user_caches
from gan_ablate.training.data import load_dataset


@functools.cache
def _extracted() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gan-ablate-features-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    dataset = load_dataset("mnist-10k", 28, folder)
    scorer = Scorer(dataset, build_extractor("digits", torch.device("cpu")), folder)
    scorer.floor(1_280)  # as many as most tests score
    return folder


def warm(out: Path) -> Path:
    """Put the features into a results folder's cache and into the user's cache; return the folder."""
    for cache in (Store(out).cache_dir, *list_user_caches(torch.device("cpu"))):
        cache.mkdir(parents=True, exist_ok=True)
        for file in _extracted().iterdir():
            shutil.copyfile(file, cache / file.name)
    return out
