"""Templates are filled with what a model has, and with nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jinja2
import pytest

from gan_ablate import reporting
from gan_ablate.reporting.page import Page

TEMPLATES = Path(reporting.__path__[0]) / "templates"


@dataclass(frozen=True, kw_only=True)
class Methods(Page):
    template: ClassVar[str] = "methods_page.md.j2"
    definitions: str = "| a |"


def test_value_that_a_model_lacks_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="has no attribute 'confidence'"):
        _ = Methods(title="Methods", path="methods.md").markdown


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.iterdir()))
def test_template_can_be_read_and_holds_no_control_characters(template: str) -> None:
    text = (TEMPLATES / template).read_text("utf-8")
    jinja2.Environment().parse(text)
    assert not re.search(r"[\t\r]| $", text, re.MULTILINE)
