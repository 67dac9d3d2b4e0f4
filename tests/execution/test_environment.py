from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gan_ablate.execution import environment
from gan_ablate.execution.context import RunContext
from gan_ablate.execution.environment import find_scorer
from gan_ablate.scoring import scorer as scorer_module
from tests.configs import make_config
from tests.features import warm


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of a package and of results, which the package takes for its own."""
    for file in ("gan_ablate/execution/environment.py", "results/report.md"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("committed\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "gan_ablate" / "execution" / "environment.py"))
    return tmp_path


@pytest.mark.parametrize(
    ("file", "is_marked"),
    [("results/report.md", False), ("results/runs.csv", False), ("gan_ablate/execution/environment.py", True)],
)
def test_a_revision_is_marked_where_other_code_ran(checkout: Path, file: str, is_marked: bool) -> None:
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout.strip()
    assert environment._git_revision() == commit
    (checkout / file).write_text("changed\n")
    assert environment._git_revision() == (f"{commit}+" if is_marked else commit)


def test_outside_a_checkout_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "gan_ablate" / "execution" / "environment.py"))
    assert environment._git_revision() is None


@pytest.mark.slow
def test_a_new_results_folder_takes_features_from_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm(tmp_path / "first")

    def refuse(*_: object) -> None:
        raise AssertionError("they were there")

    with monkeypatch.context() as patch:
        patch.setattr(scorer_module, "_extract", refuse)
        assert find_scorer(make_config(), RunContext(out="second", data_dir="data")) is not None
    (file,) = Path("second/cache").glob("*.safetensors")
    assert file.read_bytes() == (tmp_path / "first" / "cache" / file.name).read_bytes()
