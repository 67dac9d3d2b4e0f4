from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gan_ablate.errors import UserError
from gan_ablate.reporting.plots import Style, plot_samples, quality, style, write_animation
from gan_ablate.reporting.plots.quality import pareto_front
from gan_ablate.reporting.plots.samples import FRAME_MS, LAST_FRAME_MS


def save_sheet(folder: Path, step: int, level: int) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:06d}.png"
    Image.fromarray(np.full((242, 242, 3), level, np.uint8)).save(path)
    return path


def test_the_pareto_front_is_what_nothing_else_beats_in_both() -> None:
    points = [(10.0, 100.0), (20.0, 20.0), (25.0, 30.0), (30.0, 20.0), (40.0, 5.0), (9.0, 300.0)]
    assert pareto_front(points) == [(9.0, 300.0), (10.0, 100.0), (20.0, 20.0), (40.0, 5.0)]


@pytest.mark.parametrize(("fid_of_b", "has_line"), [(30.0, False), (10.0, True)])
def test_the_legend_names_a_pareto_front_where_one_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fid_of_b: float, has_line: bool
) -> None:
    labels: list[str] = []
    monkeypatch.setattr(quality, "draw_legend", lambda _, axes: labels.extend(axes.get_legend_handles_labels()[1]))
    runs = pd.DataFrame({"cell": ["a", "b"], "fid": [20.0, fid_of_b], "train_sec": [10.0, 15.0]})
    quality.plot_cost(runs, Style(["a", "b"]), tmp_path / "cost.png")
    assert ("Pareto front of the means" in labels) is has_line
    assert {"a", "b"} <= set(labels)


@pytest.mark.parametrize(("low", "high"), [(-0.05, 0.06), (-1.0, 0.3), (-0.2, 2.0), (-5.0, 5.0), (0.2, 0.4)])
def test_ticks_are_round_apart_and_within(low: float, high: float) -> None:
    ticks = style._percent_ticks(low, high)
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
    sheets = [save_sheet(tmp_path / "run", step, 30 * i) for i, step in enumerate((0, 50, 1_000))]
    write_animation(sheets, 4, tmp_path / "grid" / "training.webp")
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


def test_sheets_of_other_sizes_stand_side_by_side(tmp_path: Path) -> None:
    small = save_sheet(tmp_path / "a", 1, 0)
    large = tmp_path / "large.png"
    Image.new("RGB", (466, 466)).save(large)
    plot_samples({"small": small, "large": large}, 4, tmp_path / "samples.png")
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.width == 990


def test_a_broken_sheet_is_named_with_a_way_out(tmp_path: Path) -> None:
    sheet = tmp_path / "runs" / "abc" / "samples" / "step-000001.png"
    sheet.parent.mkdir(parents=True)
    sheet.write_bytes(b"")
    with pytest.raises(UserError, match=r"step-000001\.png: cannot be read .*; delete .*abc to run it again"):
        write_animation([sheet], 4, tmp_path / "x.webp")
    assert not (tmp_path / "x.webp").exists()
