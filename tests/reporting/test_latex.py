"""The tables for papers as LaTeX typesets them; ``nox -s latex`` fetches it."""

import math
import shutil
import subprocess
from pathlib import Path

import pytest

from gan_ablate.analysis.results import GridResults
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.store import Store
from gan_ablate.reporting.cite import cite
from gan_ablate.reporting.exports import write_tables
from tests.synthetic import save_runs

pytestmark = pytest.mark.skipif(not shutil.which("pdflatex"), reason="no LaTeX")

PAGE = r"""
\documentclass{article}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs}
\begin{document}
BODY
\end{document}
"""
GRID = """
title = "50 % of #1 & {more}_or $less"
base = "dcgan-28"
[factors.beta_1]
baseline = "a_b"
levels."a_b" = { beta1 = 0.5 }
levels."0.9: +1" = { beta1 = 0.9 }
"""


def test_tables_and_the_paragraph_are_typeset(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GRID)
    store = Store(tmp_path)
    body = []
    for grid in (tmp_path / "mine.toml", "essentials"):
        planned = plan(load_grid(grid))
        save_runs(store, planned, lambda cell, seed: 20 * math.exp(0.1 * math.sin(7 * seed + len(cell.label))))
        results = GridResults.load(store, planned.name)
        write_tables(results)
        body += [rf"\input{{{results.folder / name}}}" for name in ("summary.tex", "effects.tex")]
    paragraph, *entries = cite(tmp_path).split("\n\n")
    (tmp_path / "gan.bib").write_text("\n".join(entries), "utf-8")
    body += [paragraph, r"\bibliographystyle{plain}", r"\bibliography{gan}"]
    (tmp_path / "paper.tex").write_text(PAGE.replace("BODY", "\n".join(body)), "utf-8")
    for command in ("pdflatex", "bibtex", "pdflatex", "pdflatex"):
        options = ["-interaction=nonstopmode", "-halt-on-error"] if command == "pdflatex" else []
        done = subprocess.run([command, *options, "paper"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2_000:]
    log = (tmp_path / "paper.log").read_text("utf-8", "replace")
    assert "Overfull" not in log
    assert "undefined" not in log
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
