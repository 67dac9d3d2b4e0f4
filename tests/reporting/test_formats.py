from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jinja2
import pytest

from gan_ablate import reporting
from gan_ablate.reporting.formats import (
    Page,
    count,
    escape_latex,
    escape_markdown,
    listed,
    number,
    p_text,
    percent,
    rate_text,
    seed_text,
    signed,
)


def test_a_rate_never_goes_without_its_exact_interval() -> None:
    # Clopper-Pearson of none in five: 1 - 0.025^(1/5) = 52 %.
    assert rate_text(0, 5) == "0/5 [0 %, 52 %]"
    assert rate_text(0, 0) == "–"


@pytest.mark.parametrize(("p", "text"), [
        (0.0004, "< 0.001"), (0.0312, "= 0.031"), (1.0, "= 1"), (math.nan, "–"),
        (0.0495, "= 0.0495"), (0.0504, "= 0.0504"), (0.05, "= 0.05"), (0.049, "= 0.049"),
    ],
)  # fmt: skip
def test_p_values_are_as_precise_as_it_takes_to_see_on_which_side_of_a_level_they_lie(p: float, text: str) -> None:
    assert p_text(p) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-4.54, "-4.5"), (132.4, "+132"), (0.04, "0.0"), (1e6, "> +9,999"), (math.nan, "–")]
)
def test_percentages_are_as_precise_as_anyone_reads_them(value: float, text: str) -> None:
    assert percent(value) == text


def test_lists_name_each_word_once() -> None:
    assert [listed(words) for words in ("", "a", "ab", "abac")] == ["", "a", "a and b", "a, b and c"]


def test_numbers_have_three_digits() -> None:
    assert [number(x) for x in (0.0517, 23.456, 1234.5, math.nan, None)] == ["0.0517", "23.5", "1,234", "–", "–"]
    assert signed(-0.04, 1) == "0.0"


@pytest.mark.parametrize(
    ("seeds", "text"), [({3}, "seed 3"), ({0, 1}, "seeds 0 to 1"), ({7, 2, 1, 0, 9, 10}, "seeds 0 to 2, 7, 9 to 10")]
)
def test_seeds_are_said_as_ranges(seeds: set[int], text: str) -> None:
    assert seed_text(seeds) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50 % of a_b & c#", r"50 \% of a\_b \& c\#"),
        ("β1 ≤ 0.5 × 2", r"$\beta$1 $\le$ 0.5 $\times$ 2"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
    ],
)
def test_latex_prints_what_names_hold(text: str, escaped: str) -> None:
    assert escape_latex(text) == escaped


def test_one_seed_is_one() -> None:
    assert [count(number, "seed") for number in (0, 1, 2, 1_000)] == ["0 seeds", "1 seed", "2 seeds", "1,000 seeds"]


def test_markdown_shows_what_names_hold() -> None:
    assert escape_markdown("*a* | [b](c) <i> `d`") == r"\*a\* \| \[b\](c) \<i\> \`d\`"


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
