"""A report in Markdown in, the same as one self-contained HTML page out: figures inside, contents list, no scripts."""

from __future__ import annotations

import base64
import html
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from markdown_it.token import Token

_MEDIA_TYPES = {".png": "image/png", ".webp": "image/webp"}

_STYLE = """
:root { color-scheme: light; }
body { margin: 0; font: 16px/1.55 system-ui, sans-serif; color: #1c1c1c; background: #fff; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
nav { font-size: 0.9rem; padding: 1rem; background: #f5f5f3; }
nav ol { margin: 0; padding-left: 1.2rem; }
h1, h2, h3 { line-height: 1.25; }
h2 { margin-top: 3rem; border-top: 1px solid #ccc; padding-top: 1.2rem; }
a { color: #0b57a4; }
img { max-width: 100%; height: auto; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; }
th, td { border: 1px solid #ddd; padding: 0.3rem 0.6rem; text-align: left; vertical-align: top; }
th { background: #f5f5f3; }
td { min-width: 3.5rem; }
@media (max-width: 50rem) { table { min-width: 46rem; } }
@media (min-width: 80rem) {
  body { display: grid; grid-template-columns: 17rem minmax(0, 1fr); }
  nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; box-sizing: border-box; }
}
"""


def render_html(markdown: str, title: str, root: Path) -> str:
    """Render a report.

    Args:
        markdown: with GitHub's tables; its pictures are paths below ``root``.
        title: of the page.
        root: where the pictures lie.

    Returns:
        A page that needs no other file, but for the tables it links to.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    contents = list(_give_headings_their_anchors(tokens))
    _embed_pictures(tokens, root)
    body = parser.renderer.render(tokens, parser.options, {})
    # A wide table scrolls in a box of its own instead of stretching the page.
    body = body.replace("<table>", '<div class="table" tabindex="0"><table>').replace("</table>", "</table></div>")
    entries = "\n".join(f'<li><a href="#{anchor}">{html.escape(text)}</a></li>' for anchor, text in contents)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<nav aria-label="Contents"><ol>\n{entries}\n</ol></nav>\n<main>\n{body}</main>\n</body>\n</html>\n'
    )


def _give_headings_their_anchors(tokens: Sequence[Token]) -> Iterator[tuple[str, str]]:
    """Give every section the link target that a forge would, and yield it with its title."""
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open" and opening.tag == "h2":
            text = inline.content
            anchor = "".join(c for c in text.lower().replace(" ", "-") if c.isalnum() or c in "-_")
            opening.attrSet("id", anchor)
            yield anchor, text


def _embed_pictures(tokens: Sequence[Token], root: Path) -> None:
    """Put pictures into the page, and let links to their files lead to their places in it."""
    inline = [child for token in tokens for child in token.children or ()]
    places = set()
    for child in inline:
        if child.type == "image":
            source = str(child.attrs["src"])
            places.add(source)
            content = base64.b64encode((root / source).read_bytes()).decode("ascii")
            child.attrs |= {"src": f"data:{_MEDIA_TYPES[Path(source).suffix]};base64,{content}", "id": source}
    for child in inline:
        if child.type == "link_open" and child.attrs["href"] in places:
            child.attrSet("href", f"#{child.attrs['href']}")
