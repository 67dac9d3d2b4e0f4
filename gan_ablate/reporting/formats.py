"""Formats: numbers and estimates as text, round numbers for axes, and page models as Markdown through templates."""

from __future__ import annotations

import functools
import html
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from gan_ablate.analysis.estimates import CONFIDENCE, MIN_BOOTSTRAP_SEEDS, rate_interval
from gan_ablate.analysis.sequential import CALIBRATED_LOOKS, PRIOR_SEEDS, calibrated_level
from gan_ablate.analysis.trajectories import BASE_RATES, LARGE
from gan_ablate.design.outcomes import OUTCOMES, percent_change
from gan_ablate.scoring.scores import COLLAPSED_RECALL, COLLAPSED_SHARE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from gan_ablate.analysis.effects import Effect
    from gan_ablate.analysis.estimates import Estimate
    from gan_ablate.analysis.trajectories import Standing
    from gan_ablate.design.outcomes import Outcome


PAGE_NAME = "report.md"
"""The file name of the front page and, in its folder, of every other page."""

METHODS_NAME = "methods.md"
"""The file name of the page on definitions and methods, in the folder of the front page."""

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "≤": r"$\le$", "×": r"$\times$",
    "–": "--", "−": "$-$", "α": r"$\alpha$", "β": r"$\beta$", "λ": r"$\lambda$", "≥": r"$\ge$",
}  # fmt: skip
"""The LaTeX of characters that LaTeX does not print as they are."""


def change_text(effect: Effect, estimate: Estimate) -> str:
    """Write ``-45 % [-58, -27]`` on the ratio scale, ``+0.12 [0.03, 0.2]`` on the other; ≥ or ≤ before a bound."""
    bound = f"{effect.value_bound} " if effect.value_bound and estimate.value == effect.estimate.value else ""
    if effect.outcome.scale == "ratio":
        return bound + percent_text(estimate)
    if not math.isfinite(estimate.value):
        return "–"
    value, low, high = (f"{x:+.3g}" for x in (estimate.value, estimate.low, estimate.high))
    is_known = math.isfinite(estimate.low) or math.isfinite(estimate.high)
    return bound + (f"{value} [{low}, {high}]" if is_known else value)


def value_text(effect: Effect, value: float) -> str:
    """Write one number of an effect, rounded for a sentence: ``-45 %``, or ``+0.12`` on the scale of differences."""
    if effect.outcome.scale == "difference":
        return f"{value:+.3g}"
    change = percent_change(value)
    return f"{percent(change) if change > 9_999 else signed(change)} %"


def percent_text(estimate: Estimate) -> str:
    """Write a log ratio and its interval as changes in percent: ``-45.0 % [-58.3, -27.4]``."""
    change = estimate.as_percent_change()
    if not math.isfinite(change.value):
        return "–"
    if excludes_nothing(estimate):
        return f"{percent(change.value)} %"
    return f"{percent(change.value)} % [{percent(change.low)}, {percent(change.high)}]"


def excludes_nothing(estimate: Estimate) -> bool:
    """Whether a log ratio's interval is not known, or reaches from -100 % to beyond +9,999 % as it would be shown."""
    change = estimate.as_percent_change()
    return not math.isfinite(change.low) or (change.low < -99.95 and change.high > 9_999)


def percent(change: float) -> str:
    """Write a change in percent with about three digits: ``-4.5``, ``+132``, ``> +9,999``."""
    if change > 9_999:
        return "> +9,999"
    return signed(change, 1 if abs(change) < 100 else 0)


def rate_text(count: int, total: int) -> str:
    """Write ``2/5 [5 %, 85 %]``, a rate with its exact interval."""
    if total == 0:
        return "–"
    interval = rate_interval(count, total)
    return f"{count}/{total} [{100 * interval.low:.0f} %, {100 * interval.high:.0f} %]"


def p_text(p: float) -> str:
    """Write a p-value with its sign: ``= 0.031``, ``< 0.001``; a dash where there is none."""
    if not math.isfinite(p):
        return "–"
    if p < 0.001:
        return "< 0.001"
    level = round(1 - CONFIDENCE, 12)
    # Two digits, or more where two would not show on which side of 0.05 it lies.
    texts = (f"{p:.{digits}g}" for digits in range(2, 6))
    return f"= {next((text for text in texts if (float(text) < level) == (p < level) and float(text) != level), p)}"


def log_ticks(low: float, high: float) -> list[float]:
    """Choose round numbers between two positive ones for a logarithmic axis, at least three where possible."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in (
        (1.0,),
        (1.0, 3.0),
        (1.0, 2.0, 5.0),
        (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
        [1 + step / 4 for step in range(36)],
    ):
        ticks = [float(step * 10.0**power) for power in range(first, last + 1) for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            return inside if len(inside) <= 8 else inside[:: -(-len(inside) // 8)]
    for power in range(math.floor(math.log10(high - low)), -16, -1):  # a narrow range: even steps
        for step in (5, 2, 1):
            size = step * 10.0**power
            places = range(math.ceil(low / size), math.floor(high / size) + 1)
            if len(places) >= 3:
                return [round(place * size, -power if power < 0 else 0) for place in places]
    return [low, high]


def percent_ticks(low: float, high: float, most: int = 9) -> list[int]:
    """Choose round changes in percent between two log ratios, zero among them, ``most`` fitting on the axis."""
    below = (-1, -2, -5, -10, -20, -30, -40, -50, -60, -70, -80, -90, -95, -98, -99)
    above = (1, 2, 5, 10, 25, 50, 75, 100, 150, 200, 300, 500, 900, 1900, 4900, 9900)
    ticks = [0] if low <= 0 <= high else []
    for side in (below, above):
        last = 0.0
        for tick in side:
            place = math.log1p(tick / 100)
            if low <= place <= high and abs(place - last) >= (high - low) / most:
                ticks.append(tick)
                last = place
    return sorted(ticks)


def signed(value: float, num_decimals: int = 0) -> str:
    """Write a change with its sign, without one where it rounds to zero."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:+,.{num_decimals}f}"
    return text if float(text.replace(",", "")) else text[1:]


def number(value: float | None) -> str:
    """Write three significant digits, without an exponent; a dash where there is no finite number."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def count(number_of: int, what: str) -> str:
    """Write ``1 seed``, ``5 seeds``."""
    return f"{number_of:,} {what}{'' if number_of == 1 else 's'}"


def listed(words: Iterable[str]) -> str:
    """Join words, each once: ``mnist-10k, mnist and fashion-mnist``; none are empty."""
    once = list(dict.fromkeys(words))
    return " and ".join(filter(None, (", ".join(once[:-1]), *once[-1:])))


def seed_text(seeds: Collection[int]) -> str:
    """Write ``seeds 0 to 4, 7``."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    words = ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
    return f"seed{'s' if len(seeds) > 1 else ''} {words}"


def escape_markdown(text: str) -> str:
    """Escape a user's text so that Markdown shows it as it is, without links, pictures, tables or HTML."""
    return re.sub(r"([\\`*_\[\]<>|!#&~])", r"\\\1", text)


def heading_anchor(heading: str) -> str:
    """Write the anchor that a forge gives to a heading: ``What a step costs`` → ``what-a-step-costs``."""
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def escape_latex(text: str) -> str:
    """Escape text so that LaTeX prints it as it is."""
    return "".join(_LATEX.get(character, character) for character in text)


_DEFINED_IN = {
    "effect": "Effects",
    "adjusted interval": "Adjusted intervals",
    "decision": "Decisions",
    "outcome": "Outcomes",
    "decided by": "Adjusted intervals",
    "seeds": "Seeds and pairing",
    "same from step": "Trajectories",
    "steps; same after 2 ×, 3.3 ×": "How long an answer lasts",
    "settled at": "Intervals",
    "verdict": "Verdicts",
    "differs?": "Blocks",
    "differences": "Blocks",
    "average": "Blocks",
    "decided by [adjusted interval], Holm's p": "Adjusted intervals",
    "beside": "Verdicts",
    "rests on": "Seeds and pairing",
    "p": "Tests",
    "p, Holm": "Tests",
    "p, sign-flip (smallest possible)": "Tests",
    "bootstrap interval": "Intervals",
    "diverged as worst": "Divergence",
    "pairing is worth": "Relative efficiency of pairing",
    "diverged": "Divergence",
    "collapsed": "Collapse",
    "ms a step, median": "step time",
    "change of step time": "step time",
    **dict.fromkeys(
        ("spread over seeds", "classes, fewest", "it/s", "minutes", "p10", "p90", "process peak, MiB"),
        "Columns of the tables",
    ),
    **{outcome.title: outcome.title for outcome in OUTCOMES.values()},
}
"""Words in the heads of tables → headings of the page on methods."""


@dataclass(frozen=True)
class Picture:
    """A figure on a page.

    Attributes:
        caption: above it, as Markdown.
        file: its name in the page's folder.
        note: below it, as Markdown: what to look for, and which intervals are drawn.
    """

    caption: str
    file: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The model of a page, which its template writes. Every kind of page adds attributes.

    Attributes:
        template: the file in ``templates`` that writes it.
        title: as plain text.
        path: of its Markdown below the results folder, with forward slashes.
        sentences: at most three for the front page: what was found, where it varies, whether it lasts.
        warnings: reasons for not believing them, for the front page.
    """

    template: ClassVar[str]

    title: str
    path: str
    sentences: Sequence[str] = ()
    warnings: Sequence[str] = ()

    @functools.cached_property
    def markdown(self) -> str:
        """The page as Markdown; its links and pictures are relative to its own folder."""
        return fill_template(self.template, page=self)

    def link_heads(self, table: str) -> str:
        """Link the words in the head of a table to their definitions on the page on methods."""
        head, _, rest = table.partition("\n")
        return "\n".join(filter(None, (re.sub(r"(?<=\| )[^|]*[^| ](?= *\|)", self._link_head, head), rest)))

    def _link_head(self, found: re.Match[str]) -> str:
        head = found[0]
        told = "Effects" if head.startswith("change of ") else "Blocks" if head.startswith("difference, ") else None
        heading = _DEFINED_IN.get(head, told)
        to_root = "../" * self.path.count("/")
        return head if heading is None else f"[{head}]({to_root}{METHODS_NAME}#{heading_anchor(heading)})"


@dataclass(frozen=True, kw_only=True)
class MethodsPage(Page):
    """The model of the page on definitions and methods, of a report and of a page on a user's table."""

    template: ClassVar[str] = "methods_page.md.j2"
    confidence: ClassVar[str] = f"{100 * CONFIDENCE:.0f} %"
    min_bootstrap_seeds: ClassVar[int] = MIN_BOOTSTRAP_SEEDS
    prior_seeds: ClassVar[float] = PRIOR_SEEDS
    calibrated_looks: ClassVar[int] = CALIBRATED_LOOKS
    base_rates: ClassVar[Mapping[bool, Sequence[Standing]]] = BASE_RATES
    large: ClassVar[str] = f"{percent_change(LARGE):+.0f} % or {percent_change(-LARGE):+.0f} %"
    largest_error: ClassVar[str] = f"{calibrated_level(1 - CONFIDENCE):.1%}"
    collapsed_share: ClassVar[str] = f"{100 * COLLAPSED_SHARE:.0f} %"
    collapsed_recall: ClassVar[float] = COLLAPSED_RECALL
    outcomes: ClassVar[Sequence[Outcome]] = [*OUTCOMES.values()]

    title: str = "Definitions and methods"
    path: str = METHODS_NAME


def fill_template(template: str, **values: object) -> str:
    """Fill a template with values, and remove empty lines at its end.

    Args:
        template: the name of a file in ``templates``.
        values: by their names in the template; a name without a value is an error.
    """
    return _environment().get_template(template).render(values).rstrip() + "\n"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gan_ablate.reporting"),
        undefined=StrictUndefined,
        autoescape=False,  # most templates are Markdown or LaTeX; filters escape the text of users
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": escape_markdown, "latex": escape_latex, "html": html.escape}
    environment.filters |= {"count": count, "number": number, "thousands": "{:,}".format}
    return environment
