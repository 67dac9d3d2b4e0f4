from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from gan_ablate.reporting.html import MarkdownPage, render_html

FRONT = """# A <title> & more

See [the end](#the-end-1--2), [the grid](grid/report.md), [the table](grid/runs.csv) and [a place](https://example.org).

## A table

| a | b |
|---|---|
| **1** | -50.7 % [-67.6, -24.9] |

## The end: 1 × 2?

<script>alert(1)</script>
"""
GRID = """# A grid

[All answers](../report.md), [the table](runs.csv)

![A picture](a.png)

## The end: 1 × 2?
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
    pages = [MarkdownPage("A <title>", "report.md", FRONT), MarkdownPage("A & B", "grid/report.md", GRID)]
    return Page(render_html(pages, tmp_path))


def test_figures_are_inside(page: Page) -> None:
    (image,) = page.all("img")
    assert (image["src"] or "").startswith("data:image/png;base64,iVBORw0KGgo")
    assert image["alt"] == "A picture"


def test_links_lead_to_places_in_the_page_or_to_files_beside_it(page: Page) -> None:
    places = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    links = [attrs["href"] or "" for attrs in page.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= places
    assert {"grid/runs.csv", "https://example.org"} == {link for link in links if not link.startswith("#")}
    assert {"#report--the-end-1--2", "#grid-report", "#report"} <= set(links)


def test_all_but_the_first_page_is_folded_and_a_link_to_it_opens_it(page: Page) -> None:
    names = [name for name, _ in page.tags]
    details = names.index("details")
    assert [name for name in names[details:] if name in ("summary", "section")] == ["summary", "section"]
    assert next(attrs for name, attrs in page.tags[details:] if name == "section")["id"] == "grid-report"
    assert "section" in names[:details]


def test_an_interval_is_not_parted_by_a_line_break(page: Page) -> None:
    assert {"class": "number"} in page.all("span")


def test_nothing_is_fetched_or_run(page: Page) -> None:
    assert not page.all("script")
    assert all((attrs.get("href") or "").startswith("data:") for attrs in page.all("link"))


def test_the_contents_list_leads_to_the_front_s_sections_and_to_every_page(page: Page) -> None:
    links = [attrs["href"] for attrs in page.all("a")]
    assert links[:3] == ["#report--a-table", "#report--the-end-1--2", "#grid-report"]
    anchors = [attrs["id"] for attrs in page.all("h2")]
    assert len(set(anchors)) == len(anchors) == 3


def test_a_wide_table_scrolls_in_a_box_of_its_own(page: Page) -> None:
    names = [name for name, _ in page.tags]
    table = names.index("table")
    assert page.tags[table - 1] == ("div", {"class": "table", "tabindex": "0"})


def test_it_reads_on_a_telephone(page: Page) -> None:
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
