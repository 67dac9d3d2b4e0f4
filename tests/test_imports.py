"""The house's rule: imports go one way, and what answers in a second imports nothing slow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gan_ablate

PACKAGE = Path(gan_ablate.__file__).parent

LAYERS = (
    {"errors", "seeding"},
    {"validation", "folders", "assets", "outcomes", "allocator", "sheets"},
    {"networks"},
    {"config"},
    {"grid", "cost"},
    {"planning", "precision"},
    {"data", "features", "losses", "metrics", "models", "throughput", "environment", "store", "stats"},
    {"reference", "significance", "step"},
    {"graphs"},
    {"train", "score", "effects", "table", "variance"},
    {"events", "sample", "claims", "packed"},
    {"run", "results"},
    {"executors", "wording", "html"},
    {"progress", "tables", "plots"},
    {"report"},
    {"runner"},
    {"__init__", "cli"},
    {"__main__", "build"},
)
"""A module imports only from layers above its own, or from its own package."""

WITHOUT_TORCH = {
    "networks",
    "config",
    "grid",
    "outcomes",
    "store",
    "stats",
    "significance",
    "effects",
    "results",
    "plots",
    "wording",
    "report",
    "cli",
}
ONLY_PLACES = {"seaborn": {"plots"}, "matplotlib": {"plots"}, "ray": {"ray"}}


def module_of(path: Path) -> str:
    if path.name in ("build.py", "retrain.py"):
        return "build"  # remake the embedded files, and try others, with all that is built upon them
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Full names of what a file imports when it runs, inside functions too, but not what only types need."""
    tree = ast.parse(path.read_text("utf-8"))
    for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    skipped = {id(node) for block in for_types for node in ast.walk(block)}
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in skipped:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and id(node) not in skipped:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def test_every_module_has_its_layer() -> None:
    known = set().union(*LAYERS) | {"grids", "presets"}
    assert {module_of(path) for path in FILES} == known


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path: Path) -> None:
    own = module_of(path)
    rank = {module: i for i, layer in enumerate(LAYERS) for module in layer}
    for name in imports_of(path):
        if name.startswith("gan_ablate."):
            other = name.split(".")[1]
            if other in rank and other != own:
                assert rank[other] < rank[own], f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_heavy_libraries_stay_in_their_places(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports_of(path)}
    assert not (module_of(path) in WITHOUT_TORCH and {"torch", "torchvision", "torchmetrics"} & roots)
    for library, places in ONLY_PLACES.items():
        assert library not in roots or module_of(path) in places or path.stem in places


@pytest.mark.parametrize("command", [["--help"], ["list"], ["plan", "--grid", "essentials"], ["status"]])
def test_what_only_looks_imports_nothing_slow(command: list[str]) -> None:
    slow = {"torch", "pandas", "scipy", "matplotlib"}
    loaded = modules_loaded_by(command)
    assert not slow & loaded


def test_the_report_imports_no_torch(tmp_path: Path) -> None:
    assert "torch" not in modules_loaded_by(["report", "--out", str(tmp_path)])


def test_the_process_that_waits_for_the_workers_does_without_torch(tiny_grid: Path) -> None:
    script = (
        "import sys\nfrom gan_ablate import load_grid, plan, run_grid\n"
        f"run_grid(plan(load_grid({str(tiny_grid)!r}), budget='smoke', seeds=1), 'out')\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


def modules_loaded_by(command: list[str]) -> set[str]:
    script = (
        "import sys\nfrom gan_ablate.cli import app\n"
        f"try:\n    app({command!r})\nexcept BaseException:\n    pass\n"
        "print('\\n' + ' '.join(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(output.splitlines()[-1].split())
