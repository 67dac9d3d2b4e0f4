"""What tests of pages share."""

from __future__ import annotations

from base64 import b64decode

import pytest

from gan_ablate.reporting import page, report

PIXEL = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")
"""The smallest PNG."""


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words and tables alone: figures take seconds."""
    monkeypatch.setattr(page, "_draw_figures", lambda *_, **__: [])
    monkeypatch.setattr(page, "_draw_animations", lambda *_: [])
    monkeypatch.setattr(report, "draw_front", lambda *_: _[-1].write_bytes(PIXEL))
