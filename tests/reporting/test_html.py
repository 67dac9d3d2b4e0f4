from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from gan_ablate.reporting.html import render_html

MARKDOWN = """# A <title> & more

See [the end](#the-end-1--2), [the picture](grid/a.png) and [the table](grid/runs.csv).

## A table

| a | b |
|---|---|
| **1** | ![A picture](grid/a.png) |

## The end: 1 × 2?

<script>alert(1)</script>
"""


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    (tmp_path / "grid").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "grid" / "a.png")
    return Page(render_html(MARKDOWN, "A <title>", tmp_path))


def test_figures_are_inside(page: Page) -> None:
    (image,) = page.all("img")
    assert (image["src"] or "").startswith("data:image/png;base64,iVBORw0KGgo")
    assert image["alt"] == "A picture"


def test_links_to_figures_lead_to_their_places_in_the_page(page: Page) -> None:
    (image,) = page.all("img")
    links = [attrs["href"] for attrs in page.all("a")]
    assert f"#{image['id']}" in links
    assert "grid/runs.csv" in links


def test_nothing_is_fetched_or_run(page: Page) -> None:
    assert not page.all("script")
    assert all((attrs.get("href") or "").startswith("data:") for attrs in page.all("link"))


def test_the_contents_list_leads_to_every_section(page: Page) -> None:
    anchors = [attrs["id"] for attrs in page.all("h2")]
    links = [attrs["href"] for attrs in page.all("a")]
    assert len(anchors) == 2
    assert links[:2] == [f"#{anchor}" for anchor in anchors]
    assert links[2] in links[:2]


def test_a_wide_table_scrolls_in_a_box_of_its_own(page: Page) -> None:
    names = [name for name, _ in page.tags]
    table = names.index("table")
    assert page.tags[table - 1] == ("div", {"class": "table", "tabindex": "0"})


def test_it_reads_on_a_telephone(page: Page) -> None:
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
