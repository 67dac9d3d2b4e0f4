"""What tests of pages share."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest

from gan_ablate.reporting import report
from gan_ablate.reporting.plots import effects, quality, training
from gan_ablate.reporting.plots.style import FigurePath

PIXEL = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")
"""The smallest PNG."""


def replace_figures(monkeypatch: pytest.MonkeyPatch, picture: bytes = PIXEL) -> None:
    """Write the same picture, a pixel, for every figure: drawing takes seconds."""

    def write_picture(*arguments: object) -> None:
        paths = [argument.path for argument in arguments if isinstance(argument, FigurePath)]
        path = paths[0] if paths else arguments[-1]  # pictures that are no figures have a plain path behind the others
        assert isinstance(path, Path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)

    monkeypatch.setattr(report, "resolve_jobs", lambda *_: 1)  # another process would draw them
    for module in (effects, quality, training):
        for name in vars(module):
            if name.startswith("plot_") or name in ("enlarge_picture", "write_animation"):
                monkeypatch.setattr(module, name, write_picture)


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's results folder with its report, without figures."""
    from gan_ablate.reporting.report import write_report
    from tests.reporting.example import make_example

    out = tmp_path_factory.mktemp("example")
    with pytest.MonkeyPatch.context() as patched:
        replace_figures(patched)
        write_report(make_example(out))
    return out
