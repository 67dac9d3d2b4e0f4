from __future__ import annotations

import ast
import json
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from tests.features import warm


def read_cells() -> list[str]:
    """Read the code of the notebook's cells."""
    file = resources.files("gan_ablate").joinpath("examples/first_grid.ipynb")
    notebook = json.loads(file.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cell(code: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does, and return the value of its last expression."""
    tree = ast.parse(code)
    last = tree.body[-1]
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(tree.body[:-1], []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.slow
def test_notebook_plans_runs_plots_and_estimates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    warm(tmp_path / "results")
    mpl.use("agg")
    names: dict[str, Any] = {}
    shown = [run_cell(code, names) for code in read_cells()]
    planned, runs, _, _, effects = shown
    assert planned.num_runs == len(runs) == 9
    assert set(runs["status"]) == {"completed"}
    assert names["axes"].get_xlabel().startswith("FID")
    assert len(names["panels"].axes.flat) == 5
    assert effects["effect"].tolist() == ["beta1 0.0", "beta1 0.9"]
    assert "percent_change" in effects
