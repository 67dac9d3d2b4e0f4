"""Factors and claims: what a grid varies, and the effects that it is expected to show."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gan_ablate.design.outcomes import OUTCOMES, RATIO_OUTCOMES, OutcomeName
from gan_ablate.design.validation import Model, choices, shorten
from gan_ablate.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping


DesignKind = Literal["factorial", "one-at-a-time"]
"""Whether all factors are crossed, or each level is compared with a single baseline."""


class Factor(Model):
    """One thing that a grid varies: its levels, each a name and the fields it sets, and which one is the baseline."""

    baseline: str
    levels: Annotated[dict[str, dict[str, Any]], Field(min_length=2)]
    label: str = ""
    """The factor in words, for pages; tables and figures show its own name."""
    labels: dict[str, str] = {}
    """Level → its name in words, for pages; tables and figures show the level's own."""

    def title_of(self, name: str) -> str:
        """Return the words for the factor: its label, or else its name."""
        return self.label or name.replace("_", " ")

    def label_of(self, level: str) -> str:
        """Return the words for a level: its label, or else its name."""
        return self.labels.get(level, level)


_FRACTION = r"\d+([eE][+-]?\d+)?"


def name_levels(data: dict[str, Any]) -> dict[str, Any]:
    """Replace numbers and booleans that stand for levels by the names of the levels.

    ``baseline = 0.2`` means the level ``"0.2"``. TOML reads ``levels.0.2`` as a table ``0`` that holds a table ``2``.

    Args:
        data: a grid file. What is not a grid file stays as it is, for pydantic to refuse.
    """
    factors = data.get("factors")
    if not isinstance(factors, dict):
        return data
    named = {
        name: factor | {key: _join_fractions(factor[key]) for key in ("levels", "labels") if key in factor}
        for name, factor in factors.items()
        if isinstance(factor, dict)
    }
    for factor in named.values():
        if "baseline" in factor:
            factor["baseline"] = _name_level(factor["baseline"], factor)
    return _name_levels_of_claims({**data, "factors": {**factors, **named}}, named)


def _join_fractions(levels: Any) -> Any:
    """Turn ``{"0": {"2": …}}`` into ``{"0.2": …}``: no field's name is a number."""
    if not isinstance(levels, dict):
        return levels
    joined: dict[str, Any] = {}
    for name, settings in levels.items():
        is_number = re.fullmatch(r"-?\d+", name) is not None and isinstance(settings, dict)
        fractions = [key for key in settings if re.fullmatch(_FRACTION, key)] if is_number else []
        joined |= {f"{name}.{key}": settings[key] for key in fractions}
        if not fractions or len(fractions) < len(settings):
            joined[name] = {key: settings[key] for key in settings if key not in fractions} if fractions else settings
    return joined


def _name_level(given: Any, factor: Any) -> Any:
    """Return the name of the level that a number or a boolean stands for; anything else stays as it is."""
    if not isinstance(given, (bool, int, float)) or not isinstance(factor, dict):
        return given
    levels = factor.get("levels")
    names = list(levels) if isinstance(levels, dict) else []
    written = str(given).lower()
    equal = [] if isinstance(given, bool) or written in names else [name for name in names if _is_equal(name, given)]
    return equal[0] if len(equal) == 1 else written


def _is_equal(name: str, number: float) -> bool:
    try:
        return float(name) == number
    except ValueError:
        return False


def _name_levels_of_claims(data: dict[str, Any], factors: Mapping[str, Any]) -> dict[str, Any]:
    """Name the levels of claims and of what stands beside them."""

    def name(expected: Any) -> Any:
        if not isinstance(expected, dict):
            return expected
        given = expected.get("levels")
        every = [
            {factor: _name_level(level, factors.get(factor)) for factor, level in one.items()}
            if isinstance(one, dict)
            else one
            for one in (given if isinstance(given, list) else [given])
        ]
        named = {"levels": every if isinstance(given, list) else every[0]} if "levels" in expected else {}
        beside = expected.get("beside")
        return expected | named | ({"beside": [name(one) for one in beside]} if isinstance(beside, list) else {})

    claims = data.get("claims")
    return {**data, "claims": [name(claim) for claim in claims]} if isinstance(claims, list) else data


def label_levels(design: DesignKind, factors: Mapping[str, Factor], levels: Mapping[str, str]) -> str:
    """Name a variant: every level of a factorial design, the one changed level of a one-at-a-time design."""
    if design == "factorial":
        shown = dict(levels)
    else:
        shown = {name: level for name, level in levels.items() if level != factors[name].baseline}
    return ", ".join(f"{name.replace('_', ' ')} {level}" for name, level in shown.items()) or "baseline"


Levels = Annotated[dict[str, str], Field(max_length=2)]
"""Factor → the level that is compared with its baseline; an interaction has two."""

MAX_ID = 20


class Expectation(Model):
    """What a true claim predicts: these levels change this outcome in this direction, or not at all.

    Without levels: the baseline's outcome lies below a value, above it, or near it.
    """

    levels: Levels = {}
    outcome: OutcomeName = "fid"
    direction: Literal["lower", "higher", "none"]
    """The direction of the change; ``none`` where the claim is that the change does not matter."""
    against: float | None = None
    """The value that the baseline's outcome is compared with, instead of levels with each other."""
    margin: Annotated[float, Field(gt=0)] | None = None
    """The outcome equals the value if it lies within ± this; for direction none."""


class Claim(Model):
    """One sentence that a grid tests.

    A claim of a direction is supported if at least one of its levels changes the outcome in that direction and none in
    the other. It is refuted if none is inconclusive or changes the outcome in that direction, and at least one changes
    it in the other. It is negligible if all levels are negligible, and inconclusive otherwise. A claim of direction
    ``none`` is supported if all levels lie within the margin, and refuted by one beyond it. All levels are compared on
    one outcome, so that one family of tests bounds the probability of a false verdict. Without levels, the baseline's
    outcome is compared with a value: ``against``, with ``margin`` for direction ``none``.
    """

    id: str = ""
    """The claim's number in a list of claims, if it has one."""
    sentence: str
    levels: Annotated[list[Levels], BeforeValidator(lambda value: [value] if isinstance(value, dict) else value)] = []
    outcome: OutcomeName = "fid"
    direction: Literal["lower", "higher", "none"]
    against: float | None = None
    """The value that the baseline's outcome is compared with, instead of levels with each other."""
    margin: Annotated[float, Field(gt=0)] | None = None
    """The outcome equals the value if it lies within ± this; for direction none."""
    beside: list[Expectation] = []
    """Secondary evidence: expectations that are shown and do not decide."""

    @property
    def order(self) -> tuple[bool, list[tuple[int, str]]]:
        """A key for sorting: C2 before C10, claims without an id last."""
        parts = [part for part in re.split(r"(\d+)", self.id) if part]
        return not self.id, [(int(part), "") if part.isdigit() else (-1, part) for part in parts]

    @property
    def decisive(self) -> tuple[Expectation, ...]:
        """Primary evidence: the expectations that decide the claim."""
        common = {"outcome": self.outcome, "direction": self.direction, "against": self.against, "margin": self.margin}
        return tuple(Expectation.model_validate({"levels": levels, **common}) for levels in self.levels or [{}])


def check_claims(
    claims: list[Claim], factors: dict[str, Factor], source: str, *, has_interactions: bool, max_sentence: int
) -> None:
    """Check that a grid compares what its claims state.

    Args:
        claims: the claims of the grid.
        factors: the factors of the grid.
        source: the name of the grid's file, for the message.
        has_interactions: whether the grid's design has interactions.
        max_sentence: the most characters of a sentence.

    Raises:
        UserError: naming the claim, the problem and valid values.
    """
    for number, claim in enumerate(claims):
        where = f"{source}: claims.{number}"
        if not claim.sentence.isprintable() or not 0 < len(claim.sentence) <= max_sentence:
            advice = f"valid: one line of at most {max_sentence} characters that can be printed"
            raise UserError(f"{where}.sentence = {shorten(repr(claim.sentence))}: {advice}")
        if not re.fullmatch(r"[A-Za-z0-9_.-]*", claim.id) or len(claim.id) > MAX_ID:
            advice = f"valid: at most {MAX_ID} letters, digits and _ . -"
            raise UserError(f"{where}.id = {shorten(repr(claim.id))}: {advice}")
        if claim.id and claim.id in {other.id for other in claims[:number]}:
            raise UserError(f"{where}.id = {claim.id!r}: another claim has it")
        for expectation in (*claim.decisive, *claim.beside):
            if expectation.against is not None or expectation.margin is not None:
                _check_value(expectation, where)
                continue
            _check_levels(expectation.levels, factors, where, has_interactions=has_interactions)


def _check_value(expectation: Expectation, where: str) -> None:
    """Check an expectation that compares the baseline's outcome with a value."""
    if expectation.levels:
        raise UserError(f"{where}.levels: compared with each other or with a value; valid: levels, or against")
    if expectation.against is None:
        raise UserError(f"{where}.margin = {expectation.margin}: valid: with against, a number to be compared with")
    if expectation.outcome in RATIO_OUTCOMES:
        valid = [name for name in OUTCOMES if name not in RATIO_OUTCOMES]
        raise UserError(f"{where}.outcome = {expectation.outcome!r}: valid with against: {', '.join(valid)}")
    if (expectation.direction == "none") != (expectation.margin is not None):
        raise UserError(f'{where}.margin = {expectation.margin}: valid: a number with direction = "none", else nothing')


def _check_levels(levels: dict[str, str], factors: dict[str, Factor], where: str, *, has_interactions: bool) -> None:
    if len(levels) > 1 and not has_interactions:
        raise UserError(f'{where}.levels: two factors: an interaction; valid: with design = "factorial"')
    if not levels:
        raise UserError(f"{where}.levels: nothing is compared; valid: levels of a factor, or against = a number")
    for name, level in levels.items():
        if name not in factors:
            raise UserError(f"{where}.levels: {shorten(repr(name))}: no such factor; {choices(name, list(factors))}")
        compared = [other for other in factors[name].levels if other != factors[name].baseline]
        if level not in compared:
            what = "the baseline" if level == factors[name].baseline else "no such level"
            raise UserError(f"{where}.levels.{name} = {shorten(repr(level))}: {what}; {choices(level, compared)}")


def describe_expectation(expected: Expectation, factors: Mapping[str, Factor]) -> str:
    """Say what a claim predicts: ``FID is lower with batch_norm off than with batch_norm on``."""
    title = OUTCOMES[expected.outcome].title
    if expected.against is not None:
        margin = f"within ±{expected.margin:g} of" if expected.margin else f"{expected.direction} than"
        return f"{title} of the baseline is {margin} {expected.against:g}"
    is_other = "is the same" if expected.direction == "none" else f"is {expected.direction}"
    levels = [f"{name} {level}" for name, level in expected.levels.items()]
    if len(levels) > 1:
        return f"interaction of {' and '.join(levels)}: {title} {is_other} than both changes by themselves give"
    baselines = [f"{name} {factors[name].baseline}" for name in expected.levels]
    than = "as" if expected.direction == "none" else "than"
    return f"{title} {is_other} with {levels[0]} {than} with {baselines[0]}"
