from __future__ import annotations

from pathlib import Path

import pytest

from gan_ablate.cli.inspect import NOT_IN_LEVELS, find_field, find_levels, list_fields
from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from tests.calls import call
from tests.synthetic import save_runs


def test_every_field_of_a_run_is_listed_but_those_that_levels_cannot_set() -> None:
    paths = {field.path.split(".")[0] for field in list_fields()}
    assert paths == set(RunConfig.model_fields) - set(NOT_IN_LEVELS)
    assert ("generator.norm", "none | batch") in [(field.path, field.valid) for field in list_fields()]


def test_every_field_says_what_it_means() -> None:
    assert [field.path for field in list_fields() if not field.meaning] == []
    assert [field.path for field in list_fields() for what in field.kinds.values() if not what] == []


def test_a_field_is_found_by_the_end_of_its_path_where_that_is_one_alone() -> None:
    assert find_field("weight_clip").path == "loss.weight_clip"
    assert find_field("loss").kinds["hinge"].startswith("D's output above 1")
    assert find_field("discriminator.spectral_norm").default == "false"
    with pytest.raises(UserError, match=r"valid: generator\.norm, discriminator\.norm"):
        find_field("norm")
    with pytest.raises(UserError, match="did you mean batch_size"):
        find_field("bach_size")


def test_the_levels_of_shipped_grids_that_set_a_field_are_found() -> None:
    levels = [(level.grid, level.level, level.value) for level in find_levels("generator_fakes")]
    assert ("update_rule", "fresh", '"fresh"') in levels
    losses = {level.level: level.value for level in find_levels("loss") if level.grid == "remedies"}
    assert losses["WGAN"] == '{ kind = "wasserstein", weight_clip = 0.01 }'


def test_plan_and_status_say_how_far_things_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_grid: Path
) -> None:
    planned = plan(load_grid(tiny_grid), budget="smoke")
    save_runs(Store(Path("results")), planned, lambda _, seed: 9.0 if seed else None)
    (Path("results/runs") / planned.baseline.config.run_id / "record.json").unlink()
    assert call(monkeypatch, "plan", "--grid", str(tiny_grid), "--budget", "smoke") == 0
    output = capsys.readouterr().out
    assert "1/2" in output
    assert "2/2" in output
    assert "1 runs to compute" in output
    assert call(monkeypatch, "status") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "tiny" in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["tiny", "smoke", "2", "1", "0", "1"]


def test_status_of_a_file_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("", "utf-8")
    assert call(monkeypatch, "status", "--out", "file") == 2
    assert "--out file: not a folder" in capsys.readouterr().err


def test_list_shows_grids_presets_data_sets_and_fields(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "list") == 0
    output = capsys.readouterr().out
    for words in ("bn_label_smooth", "dcgan-28", "fashion-mnist", "discriminator.dropout2d", "folder:PATH"):
        assert words in output


def test_list_shows_the_verdict_of_every_claim(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    planned = plan(load_grid("bn_label_smooth"))
    save_runs(
        Store(tmp_path / "results"),
        planned,
        lambda variant, seed: 20.0 + seed / 9 + 20 * (variant.levels["batch_norm"] == "off"),
    )
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "list", "claims") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {cells[1].strip(): cells[-2].strip() for line in lines if len(cells := line.split("│")) > 4}
    assert rows["C2"] == "supported"
    assert rows["C7"] == "not run yet: --grid learning_rate"
    assert list(rows).index("C2") < list(rows).index("C10")
