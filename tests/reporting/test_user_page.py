from __future__ import annotations

import re
from pathlib import Path

import pytest

from gan_ablate import judge
from gan_ablate.reporting.formats import heading_anchor
from tests.reporting.example import check_golden, make_runs

pytestmark = pytest.mark.usefixtures("no_figures")


def test_page_is_golden(tmp_path: Path) -> None:
    """``RENEW_GOLDEN=1 python -m pytest tests/reporting -k golden`` writes the golden file anew."""
    runs = make_runs().assign(status="completed")
    runs.loc[1, "status"] = "diverged"
    page = judge(
        runs,
        factors=["batch_norm", "lr"],
        seed="run",
        outcomes=["fid", "acc:higher:difference"],
        out=tmp_path / "judged",
        title="*Mine*",
    )
    check_golden("user_page.md", page.read_text("utf-8"))


def test_words_in_table_heads_lead_to_the_definitions_beside_the_page(tmp_path: Path) -> None:
    runs = make_runs(num_seeds=3)
    page = judge(runs, factors=["batch_norm", "lr"], seed="run", outcomes=["fid"], out=tmp_path / "judged")
    anchors = set(re.findall(r"\]\(methods\.md#([^)]+)\)", page.read_text("utf-8")))
    headings = re.findall(r"^##+ (.+)$", (page.parent / "methods.md").read_text("utf-8"), re.MULTILINE)
    assert {"effects", "decisions", "adjusted-intervals", "tests"} <= anchors
    assert anchors <= set(map(heading_anchor, headings))
    assert 'id="methods' in (page.parent / "report.html").read_text("utf-8")


def test_page_on_single_changes_of_one_factor_has_no_interactions(tmp_path: Path) -> None:
    runs = make_runs(num_seeds=3).query("lr == 0.0002")[["batch_norm", "run", "fid"]]
    text = judge(runs, factors=["batch_norm"], seed="run", out=tmp_path / "judged", title="Mine").read_text("utf-8")
    assert "6 runs of 2 variants, every combination of levels, 3 seeds. Baseline: batch\\_norm on." in text
    assert "of the runs diverged" not in text
    assert "](fid-runs.png)" in text
    assert "interactions.png" not in text
