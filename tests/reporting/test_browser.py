"""The page as a browser shows it: nothing wider than the window, no broken image, text that can be read."""

from __future__ import annotations

import html
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from gan_ablate import judge
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.store import Store
from gan_ablate.reporting.report import write_report
from tests.reporting.conftest import replace_figures
from tests.synthetic import save_runs

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no Chromium")]

# The page is shown in a frame, whose width may be that of a telephone; a window's may not.
LOOK = """
<iframe style="width:WIDTHpx;height:900px;border:0" srcdoc="PAGE"></iframe><pre id="found"></pre><script>
const frame = document.querySelector("iframe");
const channel = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
  return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
const behind = (view, node) => { for (; node; node = node.parentElement) {
  const colour = view.getComputedStyle(node).backgroundColor;
  if (colour !== "rgba(0, 0, 0, 0)") return colour; } return "rgb(255, 255, 255)"; };
frame.onload = () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  for (const fold of page.querySelectorAll("details")) fold.open = true;
  const images = [...page.images];
  const texts = [...page.querySelectorAll("p, li, td, th, h1, h2, h3, a, summary")];
  const contrasts = texts.map(node => {
    const [a, b] = [light(view.getComputedStyle(node).color), light(behind(view, node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
  const root = page.documentElement;
  const outside = [...page.querySelectorAll("main *")].filter(node => !node.closest(".table") &&
    node.getBoundingClientRect().right > view.innerWidth + 1).map(node => node.tagName);
  document.querySelector("#found").textContent = JSON.stringify({
    width: view.innerWidth, page: root.scrollWidth, outside: outside, images: images.length, texts: texts.length,
    broken: images.filter(image => !image.complete || !image.naturalWidth).length,
    contrast: Math.min(...contrasts), dark: light(view.getComputedStyle(page.body).backgroundColor) < 0.2 });
};
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two grids, with names as long as names may get, and white figures of the size that figures have."""
    out, white = tmp_path_factory.mktemp("page"), io.BytesIO()
    Image.new("L", (990, 400), 255).save(white, "PNG")
    for grid in ("bn_label_smooth", "essentials"):
        planned = plan(load_grid(grid), seeds=3)
        save_runs(
            Store(out), planned, lambda variant, seed: 20 * math.exp(0.1 * math.sin(7 * seed + len(variant.label)))
        )
    with pytest.MonkeyPatch.context() as patched:
        replace_figures(patched, white.getvalue())
        write_report(out)
    return out / "report.html"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=120)


def look(page: Path, folder: Path, width: int, *, is_dark: bool = False) -> dict[str, Any]:
    shown = html.escape(page.read_text("utf-8").replace('loading="lazy"', ""))
    path = folder / "look.html"
    path.write_text("<!DOCTYPE html>" + LOOK.replace("WIDTH", str(width)).replace("PAGE", shown), "utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if is_dark else 1}"
    seen = run(folder, scheme, "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom", path.as_uri())
    assert "CONSOLE" not in seen.stderr
    found = re.search(r'<pre id="found">(.+?)</pre>', seen.stdout, re.DOTALL)
    assert found is not None
    answer: dict[str, Any] = json.loads(html.unescape(found[1]))
    return answer


@pytest.mark.parametrize(("width", "is_dark"), [(390, False), (390, True), (800, True), (1280, False), (1600, True)])
def test_it_is_whole_and_can_be_read(page: Path, tmp_path: Path, width: int, is_dark: bool) -> None:
    seen = look(page, tmp_path, width, is_dark=is_dark)
    assert seen["width"] == width
    assert seen["page"] <= width
    assert seen["outside"] == []
    assert seen["broken"] == 0
    assert seen["images"] > 20
    assert seen["texts"] > 300
    assert seen["contrast"] >= 4.5  # WCAG 2.2, criterion 1.4.3
    assert seen["dark"] is is_dark


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report with a page on blocks, and a page on a table of runs, without figures."""
    out = tmp_path_factory.mktemp("others")
    fid = [20.0, 10.2, 22.0, 10.9, 21.0, 10.4]
    runs = pd.DataFrame({"lr": ["1e-4", "2e-4"] * 3, "seed": [0, 0, 1, 1, 2, 2], "fid": fid})
    with pytest.MonkeyPatch.context() as patched:
        replace_figures(patched)
        for dataset in ("mnist-10k", "fashion-mnist"):
            planned = plan(load_grid("beta1"), seeds=3, dataset=dataset)
            save_runs(Store(out), planned, lambda _, seed: 20.0 + seed)
        write_report(out)
        judge(runs, factors=["lr"], out=out / "judged")
    return {"blocks": out / "report.html", "user": out / "judged" / "report.html"}


LAND = """
<script>addEventListener("load", () => setTimeout(() => {
  const target = document.getElementById(location.hash.slice(1));
  const fold = target.closest("details"), place = target.matches("section") && fold ? fold.firstElementChild : target;
  const box = place.getBoundingClientRect(), image = target.querySelector("img");
  const found = document.createElement("pre");
  found.id = "found";
  found.textContent = JSON.stringify({ top: box.top, height: box.height, window: innerHeight, text: place.textContent,
    is_open: !fold || fold.open, picture: image ? image.getBoundingClientRect().width : 0, room: target.scrollWidth });
  document.body.append(found); }, 1000));
</script>
"""


def land(page: Path, folder: Path, anchor: str, width: int = 1000) -> dict[str, Any]:
    """Open the page at an anchor, as a click on its link does, and say where the reader is."""
    path = folder / "land.html"
    path.write_text(page.read_text("utf-8").replace("</body>", f"{LAND}</body>"), "utf-8")
    seen = run(
        folder, f"--window-size={width},800", "--virtual-time-budget=20000", "--dump-dom", f"{path.as_uri()}#{anchor}"
    )
    found = re.search(r'<pre id="found">(.+?)</pre>', seen.stdout, re.DOTALL)
    assert found is not None
    answer: dict[str, Any] = json.loads(html.unescape(found[1]))
    return answer


def list_contents(page: Path) -> list[tuple[str, str]]:
    nav = page.read_text("utf-8").partition("</nav>")[0]
    return re.findall(r'<li><a href="#([^"]+)">([^<]+)</a></li>', nav)


def test_a_link_of_the_contents_lands_on_its_heading(page: Path, tmp_path: Path) -> None:
    contents = list_contents(page)
    assert len(contents) > 4
    for anchor, title in (contents[0], contents[1], contents[-2], contents[-1]):
        seen = land(page, tmp_path, anchor)
        assert seen["text"].strip() == html.unescape(title)
        assert seen["is_open"]
        assert 0 <= seen["top"] < seen["window"] - seen["height"]


@pytest.mark.parametrize("kind", ["blocks", "user"])
def test_contents_of_other_pages_land(others: dict[str, Path], tmp_path: Path, kind: str) -> None:
    contents = list_contents(others[kind])
    anchor, title = next((a, words) for a, words in contents if "blocks" in a or kind == "user")
    seen = land(others[kind], tmp_path, anchor)
    assert seen["text"].strip() == html.unescape(title)
    assert seen["is_open"]
    assert 0 <= seen["top"] < seen["window"] - seen["height"]


def test_a_word_in_a_table_head_lands_on_its_definition(page: Path, tmp_path: Path) -> None:
    seen = land(page, tmp_path, "methods--adjusted-intervals")
    assert seen["text"] == "Adjusted intervals"
    assert seen["is_open"]
    assert 0 <= seen["top"] < seen["window"] / 2


def test_figure_opens_in_full_size(page: Path, tmp_path: Path) -> None:
    anchor = re.search(r'id="(bn-label-smooth-report-figure-1-large)"', page.read_text("utf-8"))
    assert anchor is not None
    seen = land(page, tmp_path, anchor[1], width=500)
    assert seen["picture"] == 990
    assert seen["room"] == 990


def test_what_is_wrong_is_seen(page: Path, tmp_path: Path) -> None:
    """The look itself, on a page with each fault."""
    text = page.read_text("utf-8")
    faults = '<p style="color:#999">faint</p><div style="width:3000px">wide</div><img src="nothing.png" alt="">'
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("<main>", f"<main>{faults}"), "utf-8")
    seen = look(broken, tmp_path, 800)
    assert seen["page"] > 800
    assert seen["broken"] == 1
    assert seen["contrast"] < 4.5
    assert "DIV" in seen["outside"]


def test_it_prints_whole(page: Path, tmp_path: Path) -> None:
    """All that is folded on the screen is on paper: many more pages than the front page fills."""
    printed = tmp_path / "report.pdf"
    run(tmp_path, f"--print-to-pdf={printed}", "--no-pdf-header-footer", page.as_uri())
    content = printed.read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", content)) > 15
