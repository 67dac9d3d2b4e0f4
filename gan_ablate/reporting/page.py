"""What all pages of a report have in common: a title, a place, and a template that writes them as Markdown."""

from __future__ import annotations

import functools
import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from gan_ablate.reporting.formats import count, escape_latex, escape_markdown, number

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE_NAME = "report.md"
"""Of every grid's page, in its own folder, and of the front page above them."""


@dataclass(frozen=True)
class Picture:
    """A figure on a page.

    Attributes:
        caption: above it, as Markdown.
        file: its name in the page's folder.
    """

    caption: str
    file: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """The model of a page: what its template writes down. Every kind of page adds attributes of its own.

    Attributes:
        template: the file in ``templates`` that writes it.
        title: as plain text.
        path: of its Markdown below the results folder, with forward slashes.
        sentences: at most three for the front page: what was found, where it varies, whether it lasts.
        warnings: what a reader of the front page must know before believing them.
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


def fill_template(template: str, **values: object) -> str:
    """Write a template with values, without empty lines at its end.

    Args:
        template: the name of a file in ``templates``.
        values: what the template calls them → what is written; a name without a value is an error.
    """
    return _environment().get_template(template).render(values).rstrip() + "\n"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gan_ablate.reporting"),
        undefined=StrictUndefined,
        autoescape=False,  # most write Markdown or LaTeX; what users wrote goes through the filters
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": escape_markdown, "latex": escape_latex, "html": html.escape}
    environment.filters |= {"count": count, "number": number, "thousands": "{:,}".format}
    return environment
