from __future__ import annotations

import errno
import itertools
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from gan_ablate.analysis.allocation import replay_looks
from gan_ablate.analysis.effects import Effect
from gan_ablate.analysis.results import GridResults
from gan_ablate.analysis.user_table import read_table
from gan_ablate.design.claims import Factor
from gan_ablate.design.grid import load_grid
from gan_ablate.design.outcomes import OUTCOMES
from gan_ablate.design.plan import Variant, plan
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.reporting import grid_figures
from gan_ablate.reporting.formats import log_ticks, percent_ticks
from gan_ablate.reporting.plots import FigurePool, quality, style, training
from gan_ablate.reporting.plots import effects as effect_plots
from gan_ablate.reporting.plots.style import FigurePath, Style
from gan_ablate.reporting.plots.training import FRAME_MS, LAST_FRAME_MS, enlarge_picture, plot_samples, write_animation
from gan_ablate.reporting.user_page import write_user_page
from tests.synthetic import make_results, save_runs


def save_sample_grid(folder: Path, step: int, level: int) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:06d}.png"
    Image.fromarray(np.full((242, 242, 3), level, np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("low", "high"), [(-0.05, 0.06), (-1.0, 0.3), (-0.2, 2.0), (-5.0, 5.0), (0.2, 0.4)])
def test_ticks_are_round_apart_and_within(low: float, high: float) -> None:
    ticks = percent_ticks(low, high)
    places = [math.log1p(tick / 100) for tick in ticks]
    assert 1 <= len(ticks) <= 10
    assert (0 in ticks) is (low <= 0 <= high)
    assert all(low <= place <= high for place in places)
    assert all(b - a >= 0.999 * (high - low) / 9 for a, b in itertools.pairwise(places))


def test_a_variant_looks_the_same_in_every_figure() -> None:
    first, second = Style(["a", "b", "c"]), Style(["a", "b", "c"])
    assert first.colours == second.colours
    assert len(set(first.colours.values())) == len(set(first.markers.values())) == 3


def test_an_animation_shows_the_steps_in_order_and_rests_on_the_last(tmp_path: Path) -> None:
    sample_grids = [save_sample_grid(tmp_path / "run", step, 30 * i) for i, step in enumerate((0, 50, 1_000))]
    write_animation(sample_grids, 4, tmp_path / "grid" / "training.webp")
    with Image.open(tmp_path / "grid" / "training.webp") as animation:
        assert animation.size == (242, 121 + 14)
        levels: list[int] = []
        durations: list[int] = []
        for frame in range(3):
            animation.seek(frame)
            pixel = animation.convert("L").getpixel((120, 100))
            assert isinstance(pixel, int)
            levels.append(pixel)
            durations.append(animation.info["duration"])
    assert levels == pytest.approx([0, 30, 60], abs=3)
    assert durations == [FRAME_MS, FRAME_MS, LAST_FRAME_MS]


def test_sample_grids_of_other_sizes_stand_side_by_side(tmp_path: Path) -> None:
    small = save_sample_grid(tmp_path / "a", 1, 0)
    large = tmp_path / "large.png"
    Image.new("RGB", (466, 466)).save(large)
    plot_samples({"small": small, "large": large}, 4, FigurePath(tmp_path / "samples.png"))
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.width == 990


def test_a_broken_sample_grid_is_named_with_a_way_out(tmp_path: Path) -> None:
    sample_grid = tmp_path / "runs" / "abc" / "samples" / "step-000001.png"
    sample_grid.parent.mkdir(parents=True)
    sample_grid.write_bytes(b"")
    with pytest.raises(UserError, match=r"step-000001\.png: cannot be read .*; delete .*abc to run it again"):
        write_animation([sample_grid], 4, tmp_path / "x.webp")
    assert not (tmp_path / "x.webp").exists()


@pytest.mark.parametrize(("low", "high"), [(19, 70), (18.2, 19.9), (0.5, 900), (30, 110), (95, 105), (1e-3, 2e-3)])
def test_a_logarithmic_axis_has_round_ticks_inside_its_range(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 9
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(set(ticks))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(18.2, 21.8, [19, 20, 21]), (18.2, 19.9, [18.5, 19, 19.5]), (101.1, 101.9, [101.2, 101.4, 101.6, 101.8])],
)
def test_a_narrow_logarithmic_axis_has_even_round_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == ticks


def test_variants_of_one_panel_differ_and_the_baseline_is_grey_in_all() -> None:
    labels = ["baseline", *(f"a {i}" for i in range(7)), *(f"b {i}" for i in range(7))]
    look = Style(labels, {"a": labels[1:8], "b": labels[8:]})
    for panel in look.panels.values():
        assert panel[0] == "baseline"
        assert len({str(look.colours[label]) for label in panel}) == len(panel)
    assert look.colours["baseline"] == "0.45"


def test_numbers_stand_in_their_order() -> None:
    levels: dict[str, dict[str, Any]] = {"0.5": {}, "0.9": {}, "0.0": {}}
    assert effect_plots.sort_levels(Factor(baseline="0.5", levels=levels)) == ["0.0", "0.5", "0.9"]
    words: dict[str, dict[str, Any]] = {"on": {}, "off": {}}
    assert effect_plots.sort_levels(Factor(baseline="off", levels=words)) == ["off", "on"]


def test_figure_is_a_png_or_a_pdf(tmp_path: Path) -> None:
    for as_pdf, suffix in ((False, ".png"), (True, ".pdf")):
        folder = FigurePath(tmp_path / str(as_pdf), as_pdf)
        with style.open_figure(folder / "a" / "b.png", 1.0) as figure:
            figure.subplots().plot([0, 1])
        assert [path.name for path in (folder.path / "a").iterdir()] == [f"b{suffix}"]


@pytest.mark.parametrize(("num_panels", "inches"), [(1, 3.25), (2, 6.75), (6, 6.75)])
def test_pdf_is_as_wide_as_a_column_or_as_two(tmp_path: Path, num_panels: int, inches: float) -> None:
    with style.open_figure(FigurePath(tmp_path / "a.png", as_pdf=True), 2.0) as figure:
        for axes in style.lay_out_panels(figure, num_panels):
            axes.plot([0, 1])
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ", (tmp_path / "a.pdf").read_bytes())
    assert box is not None
    assert float(box[1]) == pytest.approx(72 * inches)


def draw_for_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Callable[[FigurePath], None]) -> Figure:
    """Draw a PDF and return its figure."""
    drawn: list[Figure] = []
    fit = style._fit_paper

    def keep(figure: Figure) -> None:
        fit(figure)
        drawn.append(figure)

    monkeypatch.setattr(style, "_fit_paper", keep)
    draw(FigurePath(tmp_path / "a.png", as_pdf=True))
    (figure,) = drawn
    return figure


def test_text_of_a_pdf_is_legible_and_lies_within_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = make_results(plan(load_grid("bn_label_smooth"), seeds=3), lambda _, seed: 20.0 + seed**2)
    known, look = results.verdicts.effects("fid"), Style(results.labels)
    for draw in (
        lambda path: effect_plots.plot_effects(known, path),
        lambda path: quality.plot_quality(results.runs, look, "FID of 10,000 real images: 0.05", path),
        lambda path: quality.plot_cost(results.runs, look, path),
        lambda path: effect_plots.plot_interactions(results.runs, results.plan.grid.factors, known, path),
    ):
        figure = draw_for_paper(tmp_path, monkeypatch, draw)
        figure.draw_without_rendering()
        for text in figure.findobj(Text):
            is_shown = isinstance(text, Text) and text.get_visible()
            if is_shown and re.search("[a-z]", text.get_text()):  # numbers beyond an axis' end are not drawn
                assert 7 <= float(text.get_fontsize()) <= 8
                assert figure.bbox.x0 - 3 <= text.get_window_extent().x0, text.get_text()
                assert text.get_window_extent().x1 <= figure.bbox.x1 + 3, text.get_text()


def test_numbers_of_a_narrow_axis_do_not_overlap_and_zero_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(path: FigurePath) -> None:
        with style.open_figure(path, 2.0) as figure:
            axes = figure.subplots()
            axes.set_yticks([0, 1], ["a variant with a very long name", "baseline"])
            axes.set_xlim(-1, 1)
            style.percent_axis(axes, "x", 20)

    figure = draw_for_paper(tmp_path, monkeypatch, draw)
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    assert "0 %" in [label.get_text() for label in labels]
    assert len(labels) >= 3
    for label, right in itertools.pairwise(labels):
        assert label.get_window_extent().x1 < right.get_window_extent().x0


def test_panels_of_blocks_show_all_effects_and_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first block's range may not cut an effect of the second, nor an empty row of the last take a name away."""
    drawn: list[Any] = []

    def draw_forest(axes: Any, *rest: Any) -> None:
        effect_plots.draw_forest(axes, *rest)
        drawn.append(axes)

    monkeypatch.setattr(quality, "draw_forest", draw_forest)
    panels: dict[str, list[Effect | None]] = {}
    for name, sign in (("first", 1), ("second", -1)):

        def fid(variant: Variant, seed: int, sign: int = sign) -> float:
            is_changed = variant.levels["beta1"] != "0.5"
            return math.exp(3 + 0.01 * seed**2 * (1 + is_changed) + sign * is_changed)

        results = make_results(plan(load_grid("beta1"), seeds=3), fid)
        panels[name] = [results.verdicts.effects("fid")[0]]
    quality.plot_block_effects({**panels, "average": [None]}, FigurePath(tmp_path / "e.png"))
    for axes, effects in zip(drawn, panels.values(), strict=False):
        low, high = axes.get_xlim()
        (effect,) = effects
        assert effect is not None
        assert abs(effect.estimate.value) > 0.9
        assert low < effect.estimate.value < high
    assert drawn[0].get_yticklabels()[0].get_text()


def test_figures_of_blocks_have_a_panel_a_block(tmp_path: Path) -> None:
    results = {
        dataset: make_results(plan(load_grid("beta1"), dataset=dataset, seeds=2), lambda _, seed: 20.0 + seed)
        for dataset in ("mnist-10k", "fashion-mnist")
    }
    look = Style(next(iter(results.values())).labels)
    effects = {name: of_block.verdicts.effects("fid") for name, of_block in results.items()}
    quality.plot_block_effects({**effects, "average": [None, effects["mnist-10k"][1]]}, FigurePath(tmp_path / "e.png"))
    runs = {name: of_block.runs for name, of_block in results.items()}
    quality.plot_block_quality(runs, look, FigurePath(tmp_path / "q.png"))
    curves = {name: of_block.curves for name, of_block in results.items()}
    quality.plot_block_curves(curves, look, FigurePath(tmp_path / "c.png"))
    for name in "eqc":
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width == 990


def test_looks_at_a_sequential_grid_are_a_figure(tmp_path: Path) -> None:
    asked = plan(load_grid("dropout"), seeds=12)
    noise = np.random.default_rng(0).normal(0, 0.04, (12, 4))
    labels = [variant.label for variant in asked.variants]
    results = make_results(asked, lambda variant, seed: 20 * math.exp(noise[seed, labels.index(variant.label)]))
    looks = replay_looks(asked, results.runs).looks
    assert len(looks) > 1
    effect_plots.plot_looks(looks, FigurePath(tmp_path / "looks.png"))
    with Image.open(tmp_path / "looks.png") as picture:
        assert picture.width == 990


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Keep every figure that is drawn."""
    drawn: list[Figure] = []
    draw: Any = FigureCanvasAgg.draw

    def keep(canvas: FigureCanvasAgg) -> None:
        draw(canvas)
        drawn.append(canvas.figure)

    monkeypatch.setattr(FigureCanvasAgg, "draw", keep)
    return drawn


def find_faults(figure: Figure) -> list[str]:
    """Find words that lie outside the figure, words that overlap, and small letters."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    artists: list[Any] = [*figure.texts, *figure.legends]
    for axes in (axes for axes in figure.axes if axes.axison):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            artists += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            artists.append(axis.label)
        legend = axes.get_legend()
        artists += [axes.title, *axes.texts, *([legend] if legend else [])]
    shown = [artist for artist in artists if artist.get_visible() and getattr(artist, "get_text", lambda: "x")()]
    boxes = [(str(artist), artist.get_window_extent(renderer)) for artist in shown]
    texts: list[Any] = figure.findobj(Text)
    small = [f"{text} is small" for text in texts if text.get_text() and text.get_fontsize() < style.MIN_POINTS]
    page = figure.bbox.padded(1)
    cut = small + [name for name, box in boxes if not (page.contains(*box.min) and page.contains(*box.max))]
    pairs = itertools.combinations([(name, box.shrunk(0.96, 0.9)) for name, box in boxes], 2)
    return cut + [f"{a} on {b}" for (a, box_a), (b, box_b) in pairs if box_a.overlaps(box_b)]


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["activation", "essentials", "bn_label_smooth"])
def test_no_words_overlap_and_none_are_cut(tmp_path: Path, figures: list[Figure], grid: str) -> None:
    planned = plan(load_grid(grid), seeds=5)
    labels = [variant.label for variant in planned.variants]
    noise = np.random.default_rng(0).normal(0, 0.1, (5, len(labels)))
    results = make_results(
        planned,
        lambda variant, seed: (
            20 * (1 + labels.index(variant.label)) * math.exp(noise[seed, labels.index(variant.label)])
        ),
    )
    grid_figures.draw_figures(results, FigurePath(tmp_path))
    assert len(figures) >= 7
    assert [fault for figure in figures for fault in find_faults(figure)] == []


def test_figures_of_a_grid_whose_runs_are_mostly_to_come_are_drawn(tmp_path: Path) -> None:
    """A panel has the baseline and a factor's levels: of some factors no run is finished, and nothing warns."""
    store, planned = Store(tmp_path), plan(load_grid("essentials"), seeds=1)
    save_runs(store, planned, lambda *_: 20.0)
    for run in planned.variants:
        if run.label != "dropout channels-25":
            (store.run_dir(run.config.run_id) / "record.json").unlink()
    partial = GridResults.load(store, "essentials")
    assert [label for label, _ in partial.records] == ["dropout channels-25"]
    grid_figures.draw_figures(partial, FigurePath(tmp_path))
    assert (tmp_path / "curves.png").is_file()


LONG_NAMES = {
    "optimiser": ["Adam", "RMSprop", "gradient descent with momentum 0.9 and warm-up"],
    "learning_rate": ["0.0001", "0.0002", "0.001"],
    "augmentation": ["none", "flip"],
}


def draw_table(folder: FigurePath) -> None:
    """Draw the figures of a user's table, whose levels have long names."""
    levels = itertools.product(*LONG_NAMES.values(), range(5))
    runs = pd.DataFrame(levels, columns=[*LONG_NAMES, "seed"])
    runs["fid"] = 20 * np.exp(np.random.default_rng(0).normal(0, 0.1, len(runs)))
    runs["status"] = np.where((runs["learning_rate"] == "0.001") & (runs["seed"] == 4), "diverged", "completed")
    table = read_table(runs, factors=[*LONG_NAMES])
    write_user_page(table, [OUTCOMES["fid"]], folder, title="Long names")


@pytest.mark.slow
def test_long_names_of_a_user_do_not_overlap(tmp_path: Path, figures: list[Figure]) -> None:
    draw_table(FigurePath(tmp_path))
    effects, runs, interactions = dict.fromkeys(figures)
    assert [fault for figure in (effects, runs, interactions) for fault in find_faults(figure)] == []
    assert effects.axes[0].get_window_extent().width > figures[0].bbox.width / 2
    (axes,) = runs.axes
    assert {text.get_text() for text in axes.texts} == {"1 diverged"}
    assert all(text.get_window_extent().x0 > axes.get_window_extent().x1 for text in axes.texts)
    for panel in interactions.axes:
        legend: Any = panel.get_legend()
        if legend is not None:
            collections: list[Any] = [*panel.collections]
            ends = np.concatenate([end for bars in collections for end in bars.get_segments()])
            assert panel.transData.transform(ends)[:, 1].max() < legend.get_window_extent().y0


@pytest.mark.slow
def test_long_names_of_a_user_do_not_overlap_on_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    widths, faults = [], []
    fit = style._fit_paper

    def keep(figure: Figure) -> None:
        fit(figure)
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        widths.append(figure.get_figwidth())
        faults.extend(find_faults(figure))

    monkeypatch.setattr(style, "_fit_paper", keep)
    draw_table(FigurePath(tmp_path, as_pdf=True))
    results = make_results(plan(load_grid("activation"), seeds=2), lambda _, seed: 20.0 + seed)
    quality.plot_cost(results.runs, Style(results.labels), FigurePath(tmp_path / "cost.png", as_pdf=True))
    training.plot_stability(results.runs, Style(results.labels), FigurePath(tmp_path / "s.png", as_pdf=True))
    assert faults == []
    assert widths == [6.75, 6.75, 6.75, 3.25, 6.75]


def test_steps_have_separated_thousands_and_end_markers_are_whole(tmp_path: Path, figures: list[Figure]) -> None:
    results = make_results(plan(load_grid("beta1"), seeds=3), lambda _, seed: 20.0 + seed)
    effect_plots.plot_trajectories(results.trajectories, FigurePath(tmp_path / "a.png"))
    axes = figures[-1].axes[0]
    steps = results.trajectories[0].steps
    assert "1,500" in [label.get_text() for label in axes.get_xticklabels()]
    low, high = axes.get_xlim()
    assert low < steps[0] - 20
    assert high > steps[-1] + 20


def test_seconds_of_a_curve_are_the_median_of_its_runs(tmp_path: Path, figures: list[Figure]) -> None:
    """One run had to wait for ten minutes."""
    curves = pd.DataFrame(
        {"variant": "a", "seed": [0, 1, 2], "step": 100, "train_sec": [60.0, 61.0, 660.0], "fid": 9.0}
    )
    training.plot_curves(curves, Style(["a"]), None, 2_048, FigurePath(tmp_path / "a.png"))
    (line,) = figures[-1].axes[1].lines
    assert np.asarray(line.get_xdata()).tolist() == [61.0]


def test_faults_of_a_figure_are_found(tmp_path: Path, figures: list[Figure]) -> None:
    with style.open_figure(FigurePath(tmp_path / "a.png"), 2.0) as figure:
        axes = figure.subplots()
        axes.set_xticks([0, 0.001], ["the first", "the second"])
        axes.set_title("wide " * 60)
    faults = find_faults(figures[0])
    assert len(faults) == 2
    assert "wide" in faults[0]
    assert "the first" in faults[1]
    assert "the second" in faults[1]


def test_effect_is_shown_until_it_gets_no_further_seed() -> None:
    """Its interval was decided at the second look; nobody added seeds to it afterwards."""
    asked = plan(load_grid("dropout"), seeds=12)
    errors = {variant.label: np.random.default_rng(i).normal(0, 0.04, 12) for i, variant in enumerate(asked.variants)}

    def fid(variant: Variant, seed: int) -> float:
        gain = 1.0 if variant.levels["dropout"] == "channels-25" else 0.0
        return 20 * math.exp(gain + errors[variant.label][seed])

    looks = replay_looks(asked, make_results(asked, fid).runs).looks
    first, *_, last = zip(*(look.effects for look in looks), strict=True)
    assert [effect.name for effect in (first[0], last[0])] == ["dropout channels-25", "dropout elements-50"]
    assert len(effect_plots._until_stopped(first)) == 1  # found at once
    assert effect_plots._until_stopped(last) == last  # it stays open
    assert len(looks) > 4


def test_rate_of_none_is_a_point_at_zero_with_its_number(tmp_path: Path, figures: list[Figure]) -> None:
    results = make_results(plan(load_grid("beta1"), seeds=5), lambda _, seed: 20.0 + seed)
    training.plot_stability(results.comparable.runs, Style(results.labels), FigurePath(tmp_path / "stability.png"))
    rates = figures[0].axes[0]
    points = [line for line in rates.lines if line.get_marker() in ("X", "o")]
    bars = [line for line in rates.lines if line not in points]
    assert [np.asarray(point.get_xdata()).tolist() for point in points] == [[0.0]] * 6
    assert max(bar.get_linewidth() for bar in bars) < 1
    assert [np.asarray(bar.get_xdata())[0] for bar in bars] == [0.0] * 6
    assert [text.get_text() for text in rates.texts] == ["0 of 5"] * 6
    panel = rates.get_window_extent()
    assert all(text.get_window_extent().x0 > panel.x1 for text in rates.texts)  # they hide no marker


def test_panel_without_values_says_so(tmp_path: Path, figures: list[Figure]) -> None:
    results = make_results(plan(load_grid("beta1"), seeds=2), lambda _, seed: 20.0 + seed)
    runs = results.comparable.runs.assign(oscillation=math.nan)
    training.plot_stability(runs, Style(results.labels), FigurePath(tmp_path / "stability.png"))
    panel = figures[0].axes[1]
    assert panel.get_title() == "oscillation"
    assert [text.get_text() for text in panel.texts] == ["not known"]
    assert len(panel.get_xticks()) == 0
    assert [text.get_text() for text in figures[0].axes[2].texts] == []


@pytest.mark.parametrize("is_timed", [True, False])
def test_front_figure_has_a_panel_of_times_where_any_is_known(
    tmp_path: Path, figures: list[Figure], *, is_timed: bool
) -> None:
    results = make_results(
        plan(load_grid("beta1"), seeds=5),
        lambda variant, seed: 20.0 + seed + (variant.label != "beta1 0.5") / (1 + seed),
    )
    effect = results.verdicts.effects("fid")[0]
    rows = [effect_plots.FrontRow("beta1 0.0", effect, effect if is_timed else None)]
    effect_plots.plot_front([("Adam's β1", rows)], FigurePath(tmp_path) / "front.png")
    (figure,) = figures
    words = ["change of FID, log scale: left is better", "time: left is faster"]
    assert [axes.get_xlabel() for axes in figure.axes] == words[: 1 + is_timed]


def test_no_line_joins_variants_in_the_figure_of_cost(tmp_path: Path, figures: list[Figure]) -> None:
    runs = pd.DataFrame({"variant": ["a", "b", "c"], "fid": [20.0, 10.0, 5.0], "train_sec": [10.0, 15.0, math.nan]})
    quality.plot_cost(runs, Style(["a", "b", "c"]), FigurePath(tmp_path / "cost.png"))
    (axes,) = figures[0].axes
    assert axes.get_legend_handles_labels()[1] == ["a", "b"]  # the times of c do not compare
    assert all(np.size(line.get_xdata()) == 1 for line in axes.lines)


def refuse_to_draw(path: FigurePath) -> None:
    raise UserError(f"{path.path.name}: cannot be read")


def die(survivor: int, path: FigurePath) -> None:
    """End the process that draws, unless it is the survivor."""
    if os.getpid() != survivor:
        os._exit(1)
    path.path.write_bytes(b"drawn")


@pytest.mark.slow
def test_figure_has_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    results = make_results(plan(load_grid("beta1"), seeds=2), lambda _, seed: 20.0 + seed)
    runs, look = results.runs, Style(results.labels)
    names = [f"{number}.png" for number in range(6)]
    for num_processes in (1, 3):
        seen: list[str] = []
        with FigurePool(num_processes, lambda path, seen=seen: seen.append(path.name)) as pool:  # type: ignore[misc]
            for name in names:
                FigurePath(tmp_path / str(num_processes), pool=pool).draw(name, quality.plot_quality, runs, look, name)
        assert sorted(seen) == names
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_error_of_a_figure_ends_the_report(tmp_path: Path, num_processes: int) -> None:
    def draw_all() -> None:
        with FigurePool(num_processes) as pool:
            FigurePath(tmp_path, pool=pool).draw("a.png", refuse_to_draw)
            for thread in pool._threads:  # so that the other process draws it
                while thread.is_alive() and not pool._errors:
                    time.sleep(0.01)

    with pytest.raises(UserError, match=r"a\.png: cannot be read"):
        draw_all()


@pytest.mark.slow
def test_figures_of_a_process_that_dies_are_drawn_here(tmp_path: Path) -> None:
    with FigurePool(2) as pool:
        for number in range(3):
            FigurePath(tmp_path, pool=pool).draw(f"{number}.png", die, os.getpid())
        pool._helpers[0].wait(60)
    assert [(tmp_path / f"{number}.png").read_bytes() for number in range(3)] == [b"drawn"] * 3


def draw_figure(path: Path) -> None:
    with style.open_figure(FigurePath(path), 1.0) as figure:
        figure.subplots().plot([0, 1])


def draw_animation(path: Path) -> None:
    write_animation([save_sample_grid(path.parent / "sheets", step, step) for step in (0, 9)], 2, path)


def draw_enlarged(path: Path) -> None:
    enlarge_picture(save_sample_grid(path.parent / "sheets", 0, 0), path)


@pytest.mark.parametrize(
    ("draw", "name", "kind"),
    [(draw_figure, "a.png", "PNG"), (draw_animation, "a.webp", "WEBP"), (draw_enlarged, "a.png", "PNG")],
)
def test_a_picture_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Callable[[Path], None], name: str, kind: str
) -> None:
    """Another command may read it meanwhile, and the disk may be full."""
    path = tmp_path / name
    draw(path)
    with Image.open(path) as picture:
        assert picture.format == kind
    path.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        draw(path)
    assert path.read_bytes() == b"old"
    assert not list(tmp_path.glob(".*"))
