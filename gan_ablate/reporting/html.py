"""A report as one HTML page that needs no other file: figures inside, details folded, no scripts."""

from __future__ import annotations

import base64
import itertools
import posixpath
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from markdown_it import MarkdownIt

from gan_ablate.reporting.page import fill_template

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from markdown_it.token import Token

_INTERVAL = re.compile(r"((?:[+-]?[\d.,]+ (?:% )?)?\[[+-]?[\d.,]+ ?%?, [^\[\]<>]{1,30}\](?: %)?)")
"""An estimate with its interval, which no line break may part."""

_MEDIA_TYPES = {".png": "image/png", ".webp": "image/webp"}


@dataclass(frozen=True)
class MarkdownPage:
    """One page of a report.

    Attributes:
        title: of it.
        path: of its Markdown below the results folder, with forward slashes.
        markdown: with GitHub's tables; its links and pictures are relative to its own folder.
    """

    title: str
    path: str
    markdown: str


def render_html(pages: Sequence[MarkdownPage], root: Path) -> str:
    """Render a report: its first page open, the others folded below it.

    Args:
        pages: the front page first.
        root: the results folder, in which the pictures lie.

    Returns:
        A page that needs no other file, but for the tables it links to.
    """
    anchors: dict[str, str] = {}
    for page in pages:
        anchor = "".join(c if c.isalnum() else "-" for c in page.path.removesuffix(".md"))
        while anchor in anchors.values():  # a-b and a_b are two grids
            anchor += "-2"
        anchors[page.path] = anchor
    sections, contents = [], []
    for page in pages:
        body, headings = _render(page, anchors, root)
        sections.append((anchors[page.path], page.title, body))
        contents += headings if page is pages[0] else [(anchors[page.path], page.title)]
    style = resources.files("gan_ablate.reporting").joinpath("report.css").read_text("utf-8")
    return fill_template("report.html.j2", title=pages[0].title, style=style, contents=contents, sections=sections)


def _render(page: MarkdownPage, anchors: Mapping[str, str], root: Path) -> tuple[str, list[tuple[str, str]]]:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(page.markdown)
    headings = list(_give_headings_their_anchors(tokens, anchors[page.path]))
    folder = posixpath.dirname(page.path)
    for child in (child for token in tokens for child in token.children or ()):
        if child.type == "image":
            source = posixpath.normpath(posixpath.join(folder, unquote(str(child.attrs["src"]))))
            if source.startswith(("..", "/")) or Path(source).suffix not in _MEDIA_TYPES:
                continue  # no picture of ours
            content = base64.b64encode((root / source).read_bytes()).decode("ascii")
            child.attrs |= {"src": f"data:{_MEDIA_TYPES[Path(source).suffix]};base64,{content}", "loading": "lazy"}
        elif child.type == "link_open":
            child.attrSet("href", _target(str(child.attrs["href"]), folder, anchors[page.path], anchors))
    body = str(parser.renderer.render(tokens, parser.options, {}))
    body = _INTERVAL.sub(r'<span class="number">\1</span>', body)
    # A wide table scrolls in a box of its own instead of stretching the page.
    body = body.replace("<table>", '<div class="table" tabindex="0"><table>').replace("</table>", "</table></div>")
    return body, headings


def _target(link: str, folder: str, own: str, anchors: Mapping[str, str]) -> str:
    """Lead a link to its place in the page, or to the file beside it."""
    path, _, fragment = unquote(link).partition("#")
    if "://" in path:
        return link
    if not path:
        return f"#{own}--{fragment}"
    path = posixpath.normpath(posixpath.join(folder, path))
    return f"#{anchors[path]}" if path in anchors else path


def _give_headings_their_anchors(tokens: Sequence[Token], page: str) -> Iterator[tuple[str, str]]:
    """Give every section a link target, and yield it with its title."""
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open" and opening.tag == "h2":
            text = inline.content
            slug = "".join(c for c in text.lower().replace(" ", "-") if c.isalnum() or c in "-_")
            opening.attrSet("id", f"{page}--{slug}")
            yield f"{page}--{slug}", text
