"""Logs of users' scripts: patterns of the lines that they print, by name or of a user's own, and files of numbers."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from gan_ablate.design.user_code import MAX_WORD, Word
from gan_ablate.design.validation import Model, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

LOG_GROUPS = ("epoch", "step", "steps_per_epoch", "loss_d", "loss_g")
"""Groups that a log's regular expression may have."""

JSON_LINES = "jsonl"
"""The log of a script that prints a JSON object a line."""

PRINTED = "-"
"""Instead of a file of JSON lines: what the script prints."""

_NUMBER = r"(?P<{}>[^\s,;|\])}}]+)"

LOG_PATTERNS = {
    "pytorch-dcgan": r"\[(?P<epoch>\d+)/\d+\]\[(?P<step>\d+)/(?P<steps_per_epoch>\d+)\]\s+"
    r"Loss_D: (?P<loss_d>\S+)\s+Loss_G: (?P<loss_g>\S+)",
    "pytorch-gan": r"\[Epoch (?P<epoch>\d+)/\d+\] \[Batch (?P<step>\d+)/(?P<steps_per_epoch>\d+)\] "
    r"\[D loss: (?P<loss_d>[^\s,\]]+)[^\]]*\] \[G loss: (?P<loss_g>[^\s,\]]+)",
    "lightning": r"Epoch (?P<epoch>\d+)[:/].{0,200}?(?P<step>\d+)/(?P<steps_per_epoch>\d+) "
    r"(?=.{0,200}?\b(?:d_loss|loss_d)(?:_step)?[=:] ?" + _NUMBER.format("loss_d") + ")"
    r"(?=.{0,200}?\b(?:g_loss|loss_g)(?:_step)?[=:] ?" + _NUMBER.format("loss_g") + ")",
    "mimicry": r"\[Global Step: (?P<step>\d+)/\d+\]|^\| errD: (?P<loss_d>\S+)|^\| errG: (?P<loss_g>\S+)",
}  # fmt: skip
"""Name → the usual lines of a public code base: of PyTorch's DCGAN example, PyTorch-GAN, PyTorch Lightning's progress
bar with losses called ``d_loss`` and ``g_loss``, and mimicry."""

USUAL_COLUMNS: dict[str, tuple[str, ...]] = {
    "epoch": ("epoch",),
    "step": ("step", "globalstep", "iteration", "iter", "batchesdone"),
    "steps_per_epoch": ("stepsperepoch",),
    "loss_d": ("lossd", "dloss", "errd", "lossdiscriminator", "discriminatorloss", "discloss", "lossdisc"),
    "loss_g": ("lossg", "gloss", "errg", "lossgenerator", "generatorloss", "genloss", "lossgen"),
}
"""What columns are usually called, without case, separators and ``train/`` before them."""


def find_usual_column(name: str, columns: Iterable[str]) -> str | None:
    """Find the column of a value by its usual names, without case, separators and words before them.

    >>> from gan_ablate.design.script_logs import find_usual_column
    >>> find_usual_column("loss_d", ["step", "train/D_loss"])
    'train/D_loss'

    Args:
        name: one of ``LOG_GROUPS``.
        columns: the names of the columns.
    """
    looks: dict[str, str] = {}
    for column in columns:
        parts = column.split("/") if name.startswith("loss") else []
        for part in (column, *reversed(parts)):
            look = re.sub("[^a-z]", "", part.lower()).removeprefix("train")
            looks.setdefault(look.removesuffix("step") if name.startswith("loss") else look, column)
    return next((looks[usual] for usual in USUAL_COLUMNS[name] if usual in looks), None)


class LogFile(Model):
    """A file of numbers that the script writes below ``{out}``: CSV, JSON lines, or event files of TensorBoard.

    The other fields name its columns. Without them, the usual names are found, such as ``step``, ``d_loss`` and
    ``Loss/G``.
    """

    csv: Annotated[str, Field(max_length=MAX_WORD)] = ""
    """A CSV file with a header; of several files that match, the last one written."""
    jsonl: Annotated[str, Field(max_length=MAX_WORD)] = ""
    """A file with a JSON object a line, or ``-`` for lines that the script prints."""
    tensorboard: Annotated[str, Field(max_length=MAX_WORD)] = ""
    """Folders of event files, such as ``runs/*``; tags stand for columns."""
    epoch: Word | None = None
    step: Word | None = None
    steps_per_epoch: Word | None = None
    loss_d: Word | None = None
    loss_g: Word | None = None

    @property
    def pattern(self) -> str:
        """The pattern of its files."""
        return self.csv or self.jsonl or self.tensorboard

    @property
    def columns(self) -> dict[str, str]:
        """The names of columns that are given."""
        given = {name: getattr(self, name) for name in LOG_GROUPS}
        return {name: column for name, column in given.items() if column is not None}


def check_log_file(log: LogFile) -> None:
    """Check that a log's file has one kind, and that event files name their steps themselves.

    Raises:
        PydanticCustomError: saying what is wrong.
    """
    kinds = [kind for kind in ("csv", "jsonl", "tensorboard") if getattr(log, kind)]
    if len(kinds) != 1:
        advice = 'valid: one of csv = "FILE", jsonl = "FILE", tensorboard = "FOLDER"'
        raise refusal("external.log", ", ".join(kinds), advice)
    for name in ("epoch", "step", "steps_per_epoch") if log.tensorboard else ():
        if name in log.columns:
            advice = "event files have the step by themselves; valid: loss_d and loss_g, the tags of the losses"
            raise refusal(f"external.log.{name}", log.columns[name], advice)


def check_log(pattern: str) -> None:
    """Check that a log's pattern is a name, or a regular expression with groups of ``LOG_GROUPS``.

    Raises:
        PydanticCustomError: saying what is wrong.
    """
    if not pattern or pattern == JSON_LINES or pattern in LOG_PATTERNS:
        return
    names = f"a name ({', '.join([*LOG_PATTERNS, JSON_LINES])})"
    advice = f"valid: a regular expression with the groups {', '.join(LOG_GROUPS)}, or some of them: (?P<step>\\d+)"
    advice = f"{advice}; {names}; or a table with csv, jsonl or tensorboard"
    try:
        compiled = compile_log(pattern)
    except RecursionError:
        raise refusal("external.log", pattern, f"groups too deep in one another; {advice}") from None
    except (re.error, OverflowError) as broken:
        raise refusal("external.log", pattern, f"{broken}; {advice}") from None
    if not compiled.groupindex or set(compiled.groupindex) - set(LOG_GROUPS):
        raise refusal("external.log", pattern, advice)


def compile_log(pattern: str) -> re.Pattern[str]:
    """Compile a log's regular expression, or the one of a name, without Python's warnings about its syntax."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(LOG_PATTERNS.get(pattern, pattern))
