from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gan_ablate
from gan_ablate import api
from gan_ablate.analysis.allocation import InterimAnalysis
from gan_ablate.analysis.table import load_results
from gan_ablate.api import check_rescoring, list_grids, rescore, run_grid, run_grids, run_until_settled
from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, plan
from gan_ablate.errors import UserError
from gan_ablate.execution.context import Compute, RunContext, RunObserver
from gan_ablate.execution.final_scores import RESCORED, WITHOUT_CURVES
from gan_ablate.execution.forecast import missing_runs
from gan_ablate.execution.maintenance import verify
from gan_ablate.execution.records import Record
from gan_ablate.execution.schedule import find_trained
from gan_ablate.execution.store import Store
from gan_ablate.reporting.report import write_report
from tests.features import warm
from tests.synthetic import make_record, save_runs


@pytest.mark.slow
def test_a_second_time_computes_only_what_is_missing(tmp_path: Path, tiny_grid: Path) -> None:
    planned = plan(load_grid(tiny_grid), budget="smoke")
    runs = run_grid(planned, warm(tmp_path / "out"), Compute(jobs=1))
    assert (runs["status"] == "completed").all()
    folders = {run_id: tmp_path / "out" / "runs" / run_id for run_id in runs["run_id"]}
    gone = runs["run_id"][1]
    (folders[gone] / "record.json").unlink()
    before = {run_id: (folder / "log.txt").stat().st_mtime_ns for run_id, folder in folders.items()}
    again = run_grid(planned, tmp_path / "out", Compute(jobs=1))
    changed = {run_id for run_id, f in folders.items() if (f / "log.txt").stat().st_mtime_ns != before[run_id]}
    assert changed == {gone}
    assert again["fid"].tolist() == runs["fid"].tolist()


def test_a_wrong_number_of_jobs_is_named(tmp_path: Path, tiny_grid: Path) -> None:
    with pytest.raises(UserError, match="jobs=0: valid"):
        run_grid(plan(load_grid(tiny_grid)), tmp_path / "out", Compute(jobs=0))
    assert not (tmp_path / "out").exists()


class Analyst(RunObserver):
    """Keeps the interim analyses, with their blocks' names, and the ids of expected runs."""

    def __init__(self) -> None:
        self.analyses: list[tuple[str, InterimAnalysis]] = []
        self.expected: list[str] = []

    def analysed(self, block: Plan, analysis: InterimAnalysis) -> None:
        self.analyses.append((block.name, analysis))

    def expect(self, seconds: Mapping[str, float]) -> None:
        self.expected += seconds


class Pretender:
    """Stands in for the workers: saves invented records in an order of its own, and is stopped after so many."""

    def __init__(self, planned: Plan, *, order: int = 0, stop_after: int | None = None, fails: int = 0) -> None:
        self._variants = {config.run_id: variant for variant, config in planned.runs}
        self._rng, self._left, self._fails = np.random.default_rng(order), stop_after, fails
        self.computed: list[str] = []

    def __call__(
        self,
        configs: Sequence[RunConfig],
        context: RunContext,
        _jobs: int,
        _observer: RunObserver,
        more: Callable[[], Sequence[RunConfig]] | None = None,
    ) -> Iterator[Record]:
        pending = configs
        while pending:
            for i in self._rng.permutation(len(pending)):
                if self._left is not None and len(self.computed) == self._left:
                    raise KeyboardInterrupt
                record = self._record(pending[i])
                Store(Path(context.out)).save_record(record)
                self.computed.append(record.run_id)
                yield record
            pending = () if more is None else more()

    def _record(self, config: RunConfig) -> Record:
        variant = self._variants[config.run_id]
        if self._fails:
            self._fails -= 1
            return Record(run_id=config.run_id, status="failed", message="planted", config=config)
        error = np.random.default_rng([config.seed, len(variant.label)]).normal(0, 0.04)
        return make_record(
            variant, config.seed, 20 * math.exp(error + 0.4 * (variant.levels["dropout"] == "channels-25"))
        )


def test_stopped_and_resumed_study_has_the_same_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(load_grid("dropout"), seeds=30)
    in_one_go = Pretender(planned)
    monkeypatch.setattr(api, "run_local", in_one_go)
    observer = Analyst()
    (expected,) = run_until_settled(planned, tmp_path / "a", observer=observer)
    assert expected.is_over
    assert [look.num_seeds for _, look in observer.analyses] == [look.num_seeds for look in expected.looks]
    assert len(in_one_go.computed) == expected.plan.num_runs

    computed: list[str] = []
    for number in range(20):
        pretender = Pretender(planned, order=number, stop_after=25)
        monkeypatch.setattr(api, "run_local", pretender)
        try:
            (state,) = run_until_settled(planned, tmp_path / "b")
        except KeyboardInterrupt:
            continue
        finally:
            computed += pretender.computed
        break
    assert number >= 1
    assert sorted(computed) == sorted(in_one_go.computed)
    assert state.plan == expected.plan == Store(tmp_path / "b").load_plan("dropout")
    for mine, theirs in zip(state.looks, expected.looks, strict=True):
        assert [e.adjusted for e in mine.effects] == [e.adjusted for e in theirs.effects]


def test_failed_run_is_tried_once_and_its_seed_is_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(load_grid("dropout"), seeds=30)
    pretender = Pretender(planned, fails=1)
    monkeypatch.setattr(api, "run_local", pretender)
    (state,) = run_until_settled(planned, tmp_path)
    assert state.is_over
    assert len(set(pretender.computed)) == len(pretender.computed)
    again = Pretender(planned)
    monkeypatch.setattr(api, "run_local", again)
    run_until_settled(planned, tmp_path)
    assert pretender.computed[0] in again.computed


def test_sequential_grids_report_a_shared_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_bytes(resources.files("gan_ablate.design.grids").joinpath("dropout.toml").read_bytes())
    plans = [plan(load_grid(name), seeds=30) for name in ("dropout", mine)]
    pretender, observer = Pretender(plans[0]), Analyst()
    monkeypatch.setattr(api, "run_local", pretender)
    first, second = run_until_settled(plans, tmp_path / "out", observer=observer)
    assert first.is_over
    assert second.is_over
    expected = observer.expected
    assert sorted(expected) == sorted(set(expected)) == sorted(pretender.computed)
    assert len(expected) == first.plan.num_runs == second.plan.num_runs


def test_no_seed_starts_after_the_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(load_grid("dropout"), seeds=30)
    monkeypatch.setattr(api, "run_local", Pretender(planned))
    (state,) = run_until_settled(planned, tmp_path, max_hours=1e-9)
    assert not state.is_over
    (state,) = run_until_settled(planned, tmp_path)
    assert state.is_over


def test_unscored_grid_cannot_be_sequential(tmp_path: Path) -> None:
    planned = plan(load_grid("dropout"), seeds=30, overrides=["scoring.features=none"])
    with pytest.raises(UserError, match="run_until_settled: mnist-10k is not scored"):
        run_until_settled(planned, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("seeds", "intervals"), [((5,), "fixed"), ((5, 5), "fixed"), ((5, 8), "sequential"), ((5, 8, 8), "sequential")]
)
def test_extended_grid_has_sequential_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: tuple[int, ...], intervals: str
) -> None:
    for number in seeds:
        planned = plan(load_grid("dropout"), seeds=number)
        monkeypatch.setattr(api, "run_local", Pretender(planned))
        run_grid(planned, tmp_path)
    assert Store(tmp_path).load_plan("dropout").intervals == intervals


def test_intervals_stay_sequential_after_another_design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, steps in ((5, None), (2, 200), (8, None), (2, 200), (8, None)):
        planned = plan(load_grid("dropout"), seeds=number, steps=steps)
        monkeypatch.setattr(api, "run_local", Pretender(planned))
        run_grid(planned, tmp_path)
        expected = "sequential" if number == 8 else "fixed"
        assert Store(tmp_path).load_plan("dropout").intervals == expected
    assert Store(tmp_path).list_plans() == ["dropout"]


def test_refused_start_leaves_the_plan_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Iterator[Record]:
        raise UserError("no data")

    planned = plan(load_grid("dropout"), seeds=30)
    monkeypatch.setattr(api, "run_local", refuse)
    with pytest.raises(UserError, match="no data"):
        run_until_settled(planned, tmp_path)
    assert Store(tmp_path).list_plans() == []


def test_runs_with_different_extractors_cannot_be_sequential(tmp_path: Path) -> None:
    planned = plan(load_grid("dropout"), seeds=4)
    save_runs(Store(tmp_path), planned, lambda *_: 20.0)
    config = planned.baseline.with_seed(2)
    Store(tmp_path).save_record(make_record(planned.baseline, 2, 20.0, extractor_sha256="f" * 64))
    with pytest.raises(UserError, match=r"run_until_settled: runs in .* were scored in different ways"):
        run_until_settled(plan(load_grid("dropout"), seeds=30), tmp_path)
    assert Store(tmp_path).is_done(config.run_id)


def test_another_design_is_no_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in (100, 200):
        planned = plan(load_grid("dropout"), seeds=steps // 50, steps=steps)
        monkeypatch.setattr(api, "run_local", Pretender(planned))
        run_grid(planned, tmp_path)
    assert Store(tmp_path).load_plan("dropout").intervals == "fixed"


def test_blocks_lie_side_by_side_and_one_command_more_adds_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, store = load_grid("dropout"), Store(tmp_path)
    planned = plan(grid, seeds=2)
    monkeypatch.setattr(api, "run_local", Pretender(planned))
    alone = run_grid(planned, tmp_path)
    assert "block" not in alone
    both = plan(grid, seeds=2, dataset=["mnist-10k", "fashion-mnist"])
    pretender = Pretender(both)
    monkeypatch.setattr(api, "run_local", pretender)
    runs = run_grid(both, tmp_path)
    assert len(pretender.computed) == len(alone)
    assert store.list_plans() == ["dropout", "dropout@fashion-mnist"]
    assert list(runs["block"].unique()) == ["mnist-10k", "fashion-mnist"]
    of_digits = runs.loc[runs["block"] == "mnist-10k"].drop(columns="block")
    assert list(of_digits["run_id"]) == list(alone["run_id"])
    assert runs["fid"].dtype == float
    assert object not in set(runs.dtypes)
    assert list(runs["block"].cat.categories) == ["mnist-10k", "fashion-mnist"]


def test_every_block_is_sequential_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(load_grid("dropout"), seeds=30, dataset=["mnist-10k", "fashion-mnist"])
    monkeypatch.setattr(api, "run_local", Pretender(planned))
    observer = Analyst()
    digits, fashion = run_until_settled(planned, tmp_path, observer=observer)
    assert digits.is_over
    assert fashion.is_over
    names = [name for name, _ in observer.analyses]
    assert names.count("dropout") == len(digits.looks)
    assert names.count("dropout@fashion-mnist") == len(fashion.looks)
    for state in (digits, fashion):
        assert Store(tmp_path).load_plan(state.plan.name) == state.plan


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ('base = "dcgan-28"', 'base = "mlp"', "mine@mlp"),
        ("[factors.beta", '[set]\ndataset = "fashion-mnist"\n[factors.beta', "mine@fashion-mnist"),
        ('title = "T"', 'title = "U"', "mine"),
    ],
)
def test_grid_file_with_another_base_or_data_set_keeps_both_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, name: str
) -> None:
    path = tmp_path / "mine.toml"
    text = (
        'title = "T"\nbase = "dcgan-28"\n[factors.beta1]\nbaseline = "a"\n'
        "levels.a = { beta1 = 0.5 }\nlevels.b = { beta1 = 0.9 }\n"
    )
    for content in (text, text.replace(old, new), text, text.replace(old, new)):
        path.write_text(content)
        planned = plan(load_grid(path), seeds=1)
        monkeypatch.setattr(api, "run_local", Plain(planned))
        assert len(run_grid(planned, tmp_path / "out")) == 2
    assert Store(tmp_path / "out").list_plans() == sorted({"mine", name})


class Plain(Pretender):
    """The same for any grid: all runs score alike."""

    def _record(self, config: RunConfig) -> Record:
        return make_record(self._variants[config.run_id], config.seed, 20.0)


@pytest.mark.slow
def test_grids_share_their_runs_and_each_has_its_table(tmp_path: Path, tiny_grid: Path) -> None:
    wider = tmp_path / "wider.toml"
    wider.write_text(
        tiny_grid.read_text("utf-8").replace("levels.on =", "levels.half = { loss.real_label = 0.95 }\nlevels.on =")
    )
    plans = [plan(load_grid(path), budget="smoke", seeds=1) for path in (tiny_grid, wider)]
    assert len(missing_runs(plans, Store(tmp_path / "out"))) == 3
    of_plans = run_grids(plans, warm(tmp_path / "out"), Compute(jobs=1))
    assert [[block.name for block in blocks] for blocks in of_plans] == [["tiny"], ["wider"]]
    tables = [load_results(tmp_path / "out", name) for name in ("tiny", "wider")]
    assert [len(table) for table in tables] == [2, 3]
    assert set(tables[0]["run_id"]) < set(tables[1]["run_id"])
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 3


def test_public_names_are_listed_and_are_there() -> None:
    assert set(dir(gan_ablate)) == set(gan_ablate.__all__)
    assert all(getattr(gan_ablate, name) is not None for name in gan_ablate.__all__)
    with pytest.raises(AttributeError, match="no attribute 'score'"):
        _ = gan_ablate.score


def test_grids_of_a_folder_are_listed_and_shipped_ones_without_one(tmp_path: Path) -> None:
    assert list_grids(tmp_path / "none") == []
    save_runs(Store(tmp_path), plan(load_grid("dropout"), seeds=2), lambda *_: 20.0)
    assert list_grids(tmp_path) == ["dropout"]
    assert {"beta1", "dropout"} <= set(list_grids())


EYES = """
from torch.nn import functional

def embed(images):
    return functional.adaptive_avg_pool2d(images, 4).flatten(1)
"""


@pytest.mark.slow
def test_rescored_runs_are_those_that_training_would_have_scored(tiny_grid: Path, tmp_path: Path) -> None:
    """Fewer samples are another protocol with the same features, so the curves stay, to the last digit."""
    first, second = (Path(warm(tmp_path / name)) for name in ("trained", "rescored"))
    fewer, grid = ["scoring.num_samples=1300"], load_grid(tiny_grid)
    options: dict[str, Any] = {"budget": "smoke", "seeds": 1}
    expected = run_grid(plan(grid, **options, overrides=fewer), first)
    run_grid(plan(grid, **options), second)
    blocks = rescore(plan(grid, **options, overrides=fewer), second)
    found = load_results(second, blocks[0].name)
    timed = [name for name in found if any(word in str(name) for word in ("sec", "ms", "memory"))]
    timed += ["flops", "utilisation", "images_per_sec", "fid_equal_time"]
    untimed = [name for name in found if name not in timed]
    pd.testing.assert_frame_equal(found[untimed], expected[untimed])
    store = Store(second)
    for run_id in found["run_id"]:
        record, trained = store.load_record(run_id), Store(first).load_record(run_id)
        assert record is not None
        assert trained is not None
        assert record.scoring is not None
        assert trained.scoring is not None
        assert record.scoring.curve_fid == trained.scoring.curve_fid
        assert record.notes == (RESCORED,)
        assert record.weights_sha256 == trained.weights_sha256
        assert len(store.sample_grids(run_id)) == len(Store(first).sample_grids(run_id)) == 2
    assert verify(store).problems == ()
    assert rescore(plan(grid, **options, overrides=fewer), second)  # there is nothing left to do


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_runs_are_rescored_with_a_users_extractor_and_have_no_curves(tiny_grid: Path, tmp_path: Path) -> None:
    (tmp_path / "eyes.py").write_text(EYES)
    out, grid = warm(tmp_path / "out"), load_grid(tiny_grid)
    counts = ["scoring.num_samples=1280", "scoring.curve_samples=1280", "scoring.curve_points=1"]
    options: dict[str, Any] = {"seeds": 2, "steps": 10, "overrides": counts}  # a smoke page has no remarks
    before = run_grid(plan(grid, **options), out)
    mine = plan(grid, **options, features="eyes:embed", allow_code=True)
    found_before = find_trained([mine], Store(out))
    assert found_before.keys() == set(mine.run_ids)
    rescore(mine, out)
    assert find_trained([mine], Store(out)) == {}
    after = load_results(out, mine.name)
    assert after["fid"].notna().all()
    assert (after["fid"] != before["fid"]).all()
    assert after["best_curve_fid"].isna().all()
    report = write_report(out).parent / mine.name / "report.md"
    text = report.read_text("utf-8")
    assert f"4 of 4 runs: {WITHOUT_CURVES}." in text
    assert "eyes:embed features" in text


def test_what_cannot_be_rescored_is_one_line(tiny_grid: Path, tmp_path: Path) -> None:
    grid = load_grid(tiny_grid)
    with pytest.raises(UserError, match=r"no finished run has kept a generator .*; valid: gan-ablate run"):
        rescore(plan(grid), tmp_path / "none")
    (tmp_path / "archive" / "records").mkdir(parents=True)
    with pytest.raises(UserError, match="it is an archive, which has records without generators"):
        rescore(plan(grid), tmp_path / "archive")
    with pytest.raises(UserError, match="mnist-10k: nothing to score with; valid: features='inception'"):
        rescore(plan(grid, overrides=["scoring.features=none"]), tmp_path / "none")
    with pytest.raises(UserError, match="executor='ray': its nodes may not see the generators; valid: local, slurm"):
        check_rescoring([plan(grid)], Store(tmp_path), Compute.model_construct(executor="ray"))
    with pytest.raises(UserError, match=r"scoring\.representation = true: it needs the discriminator"):
        rescore(plan(grid, overrides=["scoring.representation=true"]), tmp_path / "none")
