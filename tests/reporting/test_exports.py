from __future__ import annotations

import dataclasses
import functools
import html
import math
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from PIL import Image

from gan_ablate import judge
from gan_ablate.analysis.results import GridResults
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.reporting.exports import check_tensorboard, effects_as_latex, render_html, write_events, write_tables
from gan_ablate.reporting.formats import Page
from gan_ablate.reporting.report import write_citation
from tests.synthetic import save_runs


@pytest.fixture
def results(tmp_path: Path) -> GridResults:
    store, planned = Store(tmp_path), plan(load_grid("beta1"))
    save_runs(
        store, planned, lambda variant, seed: 20 * math.exp(0.1 * math.sin(7 * seed + sum(map(ord, variant.label))))
    )
    return GridResults.load(store, "beta1")


def test_percent_columns_are_the_log_ratios_and_nobody_mistakes_one_for_the_other(results: GridResults) -> None:
    write_tables(results)
    effects = pd.read_csv(results.folder / "effects.csv")
    ratios = effects["scale"] == "log ratio"
    for end in ("", "_low", "_high"):
        column = "value" if not end else end.removeprefix("_")
        expected = 100 * (effects.loc[ratios, column].map(math.exp) - 1)
        assert effects.loc[ratios, f"percent_change{end}"].to_numpy() == pytest.approx(expected.to_numpy(), nan_ok=True)
    assert effects.loc[~ratios, "percent_change"].isna().all()


def test_runs_say_whose_times_count(results: GridResults) -> None:
    _, config = next(iter(results.plan.runs))
    record = results.store.load_record(config.run_id)
    assert record is not None
    assert record.throughput is not None
    busy = record.throughput.model_copy(update={"step_ms_p90": 200.0})
    results.store.save_record(record.model_copy(update={"throughput": busy}))
    write_tables(GridResults.load(results.store, "beta1"))
    runs = pd.read_csv(results.folder / "runs.csv")
    assert runs.loc[~runs["has_comparable_times"], "run_id"].tolist() == [config.run_id]


def test_table_for_papers_has_the_numbers_and_no_character_that_latex_takes_for_a_command(results: GridResults) -> None:
    write_tables(results)
    text = (results.folder / "effects.tex").read_text("utf-8")
    assert all(
        rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption", r"\label{tab:beta1-effects}")
    )
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3
    effect = results.verdicts.effects("fid")[0]
    change = f"{100 * math.expm1(effect.estimate.value):+.1f}"
    assert f"& {change}".replace("-", "$-$") in rows[1]
    assert not re.search(r"(?<!\\)[%#]", "".join(rows))
    assert all(row.count("&") == rows[0].count("&") for row in rows)


@pytest.mark.parametrize("name", ["effects.tex", "summary.tex"])
def test_table_for_papers_says_its_data_and_its_packages(results: GridResults, name: str) -> None:
    write_tables(results)
    packages, *_ = lines = (results.folder / name).read_text("utf-8").splitlines()
    assert packages.startswith(r"% Needs \usepackage{booktabs,tabularx}")
    (caption,) = [line for line in lines if line.startswith(r"\caption")]
    for words in ("(mnist-10k, 1,500 generator steps, 5 seeds)", r"brackets are", r"95 \% intervals"):
        assert words.lower() in caption.lower()


def test_effects_name_seeds_where_they_differ(results: GridResults) -> None:
    effects = results.verdicts.effects("fid")
    fewer = dataclasses.replace(effects[0], estimate=dataclasses.replace(effects[0].estimate, num_seeds=3))
    assert "& seeds" not in effects_as_latex(effects, "name", "A grid")
    assert "decision & seeds" in effects_as_latex([fewer, *effects[1:]], "name", "A grid")


def test_effects_of_sequential_seeds_say_so(results: GridResults) -> None:
    effects = results.verdicts.effects("fid")
    assert "however often" not in effects_as_latex(effects, "name", "A grid")
    sequential = [dataclasses.replace(effect, is_fixed=False) for effect in effects]
    assert "they stay valid at every look" in effects_as_latex(sequential, "name", "A grid")


def width_in_points(cell: str) -> float:
    """Measure a cell in Computer Modern of eight points, which is 7 % wider than that of ten at the same size."""
    words = re.sub(r"\\allowbreak{}|[\\$]", "", cell.replace(r"$<$", "<").replace(r"$-$", "−"))
    font = FontProperties(fname=str(Path(mpl.get_data_path(), "fonts/ttf/cmr10.ttf")))
    return 1.07 * float(TextPath((0, 0), words.replace("−", "+"), size=8, prop=font).get_extents().width)


COLUMN_POINTS = 3.25 * 72.27


@pytest.mark.parametrize("grid", ["beta1", "normalisation", "bn_label_smooth"])
def test_tables_for_papers_fit_a_column(tmp_path: Path, grid: str) -> None:
    """The first column breaks its lines; no word of it may be wider than what the others leave."""
    planned = plan(load_grid(grid), seeds=12)
    save_runs(
        Store(tmp_path), planned, lambda variant, seed: 140 * math.exp(0.2 * math.sin(7 * seed + len(variant.label)))
    )
    write_tables(GridResults.load(Store(tmp_path), grid))
    for name in ("effects.tex", "summary.tex"):
        text = (tmp_path / grid / name).read_text("utf-8")
        rows = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if line.endswith(r"\\")]
        fixed = sum(max(map(width_in_points, column)) for column in list(zip(*rows, strict=True))[1:])
        gaps = 2 * 2.5 * (len(rows[0]) - 1)
        words = [word for row in rows for word in re.split(r" |(?<=-)|(?<=allowbreak{})", row[0])]
        assert fixed + gaps + max(map(width_in_points, words)) < COLUMN_POINTS


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


@dataclass(frozen=True, kw_only=True)
class TextPage(Page):
    text: str

    @functools.cached_property
    def markdown(self) -> str:
        return self.text


class Rendered(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def page(tmp_path: Path) -> Rendered:
    (tmp_path / "grid").mkdir()
    Image.new("RGB", (3, 2)).save(tmp_path / "grid" / "a.png")
    pages = [
        TextPage(title="A <title>", path="report.md", text=FRONT),
        TextPage(title="A & B", path="grid/report.md", text=GRID),
    ]
    return Rendered(render_html(pages, tmp_path))


def test_figures_are_inside(page: Rendered) -> None:
    (image,) = page.all("img")
    assert (image["src"] or "").startswith("data:image/png;base64,iVBORw0KGgo")
    assert image["alt"] == "A picture"


def test_figure_keeps_its_place_before_it_is_loaded(page: Rendered) -> None:
    (image,) = page.all("img")
    assert (image["width"], image["height"]) == ("3", "2")


def test_figure_is_enlarged_by_a_link_to_itself(page: Rendered) -> None:
    (span,) = [attrs for attrs in page.all("span") if attrs.get("class") == "large"]
    (paragraph,) = [attrs for attrs in page.all("p") if attrs.get("class") == "figure"]
    links = [attrs["href"] for attrs in page.all("a")]
    assert f"#{span['id']}" in links
    assert f"#{paragraph['id']}" in links  # which closes it


def test_link_to_a_heading_of_another_page_leads_to_that_heading(tmp_path: Path) -> None:
    text = "# A\n\n[a word](../methods.md#the-word-1)\n"
    methods = "# Methods\n\n## The word\n\n### The word\n"
    pages = [
        TextPage(title="A", path="a/report.md", text=text),
        TextPage(title="Methods", path="methods.md", text=methods),
    ]
    page = Rendered(render_html(pages, tmp_path))
    assert "#methods--the-word-1" in [attrs["href"] for attrs in page.all("a")]
    assert page.all("h3")[0]["id"] == "methods--the-word-1"


def test_links_lead_to_places_in_the_page_or_to_files_beside_it(page: Rendered) -> None:
    places = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    links = [attrs["href"] or "" for attrs in page.all("a")]
    assert {link[1:] for link in links if link.startswith("#")} <= places
    assert {"grid/runs.csv", "https://example.org"} == {link for link in links if not link.startswith("#")}
    assert {"#report--the-end-1--2", "#grid-report", "#report"} <= set(links)


def test_all_but_the_first_page_is_folded_and_a_link_to_it_opens_it(page: Rendered) -> None:
    names = [name for name, _ in page.tags]
    details = names.index("details")
    assert [name for name in names[details:] if name in ("summary", "section")] == ["summary", "section"]
    assert next(attrs for name, attrs in page.tags[details:] if name == "section")["id"] == "grid-report"
    assert "section" in names[:details]


def test_an_interval_is_not_parted_by_a_line_break(page: Rendered) -> None:
    assert {"class": "number"} in page.all("span")


def test_nothing_is_fetched_or_run(page: Rendered) -> None:
    assert not page.all("script")
    assert all((attrs.get("href") or "").startswith("data:") for attrs in page.all("link"))


def test_the_contents_list_leads_to_the_front_s_sections_and_to_every_page(page: Rendered) -> None:
    links = [attrs["href"] for attrs in page.all("a")]
    assert links[:3] == ["#report--a-table", "#report--the-end-1--2", "#grid-report"]
    anchors = [attrs["id"] for attrs in page.all("h2")]
    assert len(set(anchors)) == len(anchors) == 3


def find_lost_links(page: str) -> list[str]:
    """Find links of a page that lead nowhere, and those of its contents that do not lead to their words."""
    contents = re.findall(r'<li><a href="#([^"]+)">([^<]+)</a></li>', page.partition("</nav>")[0])
    assert contents
    lost = [link for link in re.findall(r'href="#([^"]+)"', page) if f'id="{link}"' not in page]
    for anchor, words in contents:
        behind = re.search(rf'<(?:section id="{anchor}">\s*<h1>|h2 id="{anchor}">)(.*?)</h[12]>', page, re.DOTALL)
        if behind is None or html.unescape(re.sub("<[^>]+>", "", behind[1])) != html.unescape(words):
            lost.append(anchor)
    return lost


def test_contents_of_the_example_lead_to_headings_of_front_and_titles_of_all_pages(example: Path) -> None:
    page = (example / "report.html").read_text("utf-8")
    places = re.findall(r'<li><a href="#([^"]+)">', page.partition("</nav>")[0])
    assert any(place.startswith("report--") for place in places)
    assert any(place.endswith("-blocks-report") for place in places)
    assert places[-1] == "methods"
    assert find_lost_links(page) == []


def test_contents_of_a_page_on_a_table_lead_to_its_headings(tmp_path: Path, no_figures: None) -> None:
    fid = [20.0, 10.2, 22.0, 10.9, 21.0, 10.4]
    runs = pd.DataFrame({"lr": ["1e-4", "2e-4"] * 3, "seed": [0, 0, 1, 1, 2, 2], "fid": fid, "f-score": fid})
    judge(runs, factors=["lr"], outcomes=["fid", "f-score:higher"], out=tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert len(re.findall(r'<li><a href="#report--', page)) == 4
    assert find_lost_links(page) == []
    heading = re.search(r'<h2 id="report--files">', page)
    assert heading is not None
    assert find_lost_links(page.replace(heading[0], "<h2>")) == ["report--files", "report--files"]


def test_a_wide_table_scrolls_in_a_box_of_its_own(page: Rendered) -> None:
    names = [name for name, _ in page.tags]
    table = names.index("table")
    assert page.tags[table - 1] == ("div", {"class": "table", "tabindex": "0"})


def test_it_reads_on_a_telephone(page: Rendered) -> None:
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


def test_event_files_hold_what_the_records_do(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra: pip install gan-ablate[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store, planned = Store(tmp_path), plan(load_grid("beta1"), seeds=2)
    save_runs(store, planned, lambda variant, _: None if variant.label.endswith("0.9") else 20.0)
    for _ in range(2):  # the second time in the place of the first
        assert write_events(store, [planned]) == tmp_path / "tensorboard"
    folders = sorted({path.parent for path in (tmp_path / "tensorboard").rglob("events.*")})
    assert len(folders) == 6
    (folder,) = [path for path in folders if path.parent.name == planned.baseline.label and path.name == "seed-1"]
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    record = store.load_record(planned.baseline.run_id(1))
    assert record is not None
    assert record.scoring is not None
    loss = events.Scalars("training/loss_d")
    assert [event.step for event in loss] == record.history["step"]
    assert [event.value for event in loss] == pytest.approx(record.history["loss_d"])
    curve = events.Scalars("fid_along_training")
    assert [event.value for event in curve] == pytest.approx(record.scoring.curve_fid)
    assert [event.value for event in events.Scalars("scores/fid")] == [pytest.approx(20.0)]
    images = events.Images("samples")
    assert [image.step for image in images] == [0, 1500]
    assert (images[0].width, images[0].height) == (242, 242)
    assert "_hparams_/session_start_info" in events.summary_metadata
    diverged = EventAccumulator(str(next(path for path in folders if path.parent.name.endswith("0.9"))))
    diverged.Reload()
    assert "scores/fid" not in diverged.Tags()["scalars"]


def test_the_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match="--tensorboard: needs the package tensorboard; valid: pip install"):
        check_tensorboard()


PAPER = r"""
\documentclass{article}
\usepackage[textwidth=3.25in]{geometry}
\usepackage{booktabs,tabularx}
\begin{document}
BODY
\end{document}
"""
ODDLY_NAMED_GRID = """
title = "50 % of #1 & {more}_or $less"
base = "dcgan-28"
[factors.beta_1]
baseline = "a_b"
levels."a_b" = { beta1 = 0.5 }
levels."0.9: +1" = { beta1 = 0.9 }
"""


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX")
def test_tables_and_the_paragraph_are_typeset(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(ODDLY_NAMED_GRID)
    store = Store(tmp_path)
    body = []
    for grid in (tmp_path / "mine.toml", "essentials"):
        planned = plan(load_grid(grid))
        save_runs(store, planned, lambda variant, seed: 20 * math.exp(0.1 * math.sin(7 * seed + len(variant.label))))
        results = GridResults.load(store, planned.name)
        write_tables(results)
        body += [rf"\input{{{results.folder / name}}}" for name in ("summary.tex", "effects.tex")]
    write_citation(tmp_path)
    body += [r"\input{methods}", r"\bibliographystyle{plain}", r"\bibliography{references}"]
    (tmp_path / "paper.tex").write_text(PAPER.replace("BODY", "\n".join(body)), "utf-8")
    for command in ("pdflatex", "bibtex", "pdflatex", "pdflatex"):
        options = ["-interaction=nonstopmode", "-halt-on-error"] if command == "pdflatex" else []
        done = subprocess.run([command, *options, "paper"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2_000:]
    log = (tmp_path / "paper.log").read_text("utf-8", "replace")
    assert "Overfull" not in log
    assert "undefined" not in log
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
