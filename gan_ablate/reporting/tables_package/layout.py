"""Cells in, a Markdown table's lines out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence


def lay_out(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> list[str]:
    """Write a table's lines, whatever its cells hold."""
    # p(y|x) would end the cell, and a line end the table.
    cells = [[" ".join(str(cell).replace("|", "\\|").split()) for cell in row] for row in rows]
    return tabulate(cells, headers, tablefmt="github", disable_numparse=True).splitlines()


def picture_table(cells: Sequence[tuple[str, str]]) -> list[str]:
    """Lay captioned pictures out, three to a row."""
    width = min(3, len(cells))
    rows = []
    for i in range(0, len(cells), width):
        of_row = [*cells[i : i + width], *[("", "")] * (width - len(cells[i : i + width]))]
        rows += [[label for label, _ in of_row], [picture for _, picture in of_row]]
    return lay_out(rows[1:], rows[0])
