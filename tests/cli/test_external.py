"""The commands ``judge`` and ``score``, as a user calls them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch.nn import functional

from gan_ablate.scoring.metrics import frechet_distance
from gan_ablate.training.data import load_dataset, resize
from tests.calls import call
from tests.features import warm


def test_sets_are_scored_side_by_side_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warm(tmp_path / "results")
    digits = load_dataset("mnist-10k", 28, tmp_path).images[:1_280, 0].numpy()
    np.save("good.npy", digits)
    worse = os.fsdecode(b"wors\xe9.npz")  # no UTF-8
    np.savez(worse, images=digits // 2)
    assert call(monkeypatch, "score", "good.npy", worse, "--to", "mine.csv") == 0
    shown = capsys.readouterr().out
    assert "real images, 28×28" in shown
    assert "FID against the first" in shown
    scores = pd.read_csv("mine.csv")
    assert list(scores["set"]) == ["good.npy", r"wors\udce9.npz", "real images, 28×28"]
    assert list(scores["num_samples"]) == [1_280] * 3
    assert scores["fid"][1] > 5
    assert scores["fid"][0] < 0.5
    assert scores["fid_log_ratio"][1] == pytest.approx(np.log(scores["fid"][1] / scores["fid"][0]))
    assert f"{scores['fid'][1]:.4g}" in shown


def test_sets_of_different_numbers_are_scored_alike_and_of_different_sizes_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load_dataset("mnist-10k", 28, tmp_path)
    few = dataclasses.replace(data, images=data.images[:2_000], reference=data.reference[:1_500], sha256="f" * 64)
    sized = {28: few, 14: dataclasses.replace(few, images=resize(few.images, 14))}
    monkeypatch.setattr("gan_ablate.scoring.image_scores.load_dataset", lambda _, size, *__: sized[size])
    np.save("first.npy", data.images[2_000:3_400, 0].numpy())
    np.save("fewer.npy", data.images[4_000:5_300, 0].numpy())
    np.save("small.npy", resize(data.images[6_000:7_300], 14)[:, 0].numpy())
    np.save("reference.npy", data.reference[:1_500, 0].numpy())
    assert call(monkeypatch, "score", "first.npy", "fewer.npy", "small.npy") == 0
    shown = capsys.readouterr().out
    assert "first.npy: 1,300 of 1,400 images scored, as many as of the smallest set: FID depends on the number" in shown
    assert "small.npy: not compared with the first: 14×14 pixels against 28×28; valid: sets of one size" in shown
    scores = pd.read_csv("scores.csv")
    assert list(scores["num_samples"]) == [1_300] * 5
    assert list(scores["num_images"]) == [1_400, 1_300, 1_300, 1_300, 1_300]
    assert scores["fid_log_ratio"].notna().tolist() == [False, True, False, False, False]
    assert call(monkeypatch, "score", "reference.npy", "reference.npy") == 0
    shown = capsys.readouterr().out
    assert "reference.npy: FID is 0 within rounding: these are the held-out images themselves" in shown
    assert "reference.npy: not compared with the first: a FID of 0 has no ratio" in shown
    assert "%" not in shown.replace("95 %", "")
    assert sorted(path.name for path in Path.cwd().iterdir()) == [
        "cache-home", "fewer.npy", "first.npy", "reference.npy", "scores.csv", "small.npy",
    ]  # fmt: skip


def test_a_table_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{bn},{seed},{20 + seed + 9 * (bn == 'off')}" for seed in range(6) for bn in ("on", "off")]
    Path("runs.csv").write_text("\n".join(["bn,run,fid", *lines]))
    options = ("--factor", "bn", "--seed", "run", "--margin", "5 %", "--baseline", "bn=off", "--title", "Mine")
    assert call(monkeypatch, "judge", "runs.csv", *options) == 0
    assert capsys.readouterr().out == "Report: judged/report.md\n"
    page = Path("judged/report.md").read_text()
    assert page.startswith("# Mine\n\n- **Helps (lowers FID)**: **bn on** -")
    assert "Margin of ratios: -4.8 % to +5 %." in page
    assert Path("judged/fid-effects.png").is_file()


def test_a_long_table_is_judged_block_by_block_and_what_was_read_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        f"{data},{bn},{seed},{epoch},{20 + seed + 9 * (bn == 'off') - epoch}"
        for data in ("a", "b")
        for seed in range(3)
        for bn in ("on", "off")
        for epoch in (1, 2)
    ]
    Path("runs.csv").write_text("\n".join(["data,bn,seed,epoch,fid", *lines]))
    options = ("--factor", "bn", "--block", "data", "--at", "best:fid", "--step", "epoch", "--figures", "pdf")
    assert call(monkeypatch, "judge", "runs.csv", *options) == 0
    shown = capsys.readouterr().out
    assert "runs.csv: Each run is taken at its lowest fid, the best of its 2 rows: epoch 2\n" in shown
    assert "A best fid is biased: it is too low by chance" in shown
    names = {path.name for path in Path("judged").iterdir()}
    assert names >= {"fid-effects.pdf", "fid-runs.pdf", "fid-block-1-effects.pdf", "fid-block-2-runs.pdf"}


def test_figures_of_a_judged_table_for_papers_are_pdfs_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{bn},{seed},{20 + seed + 9 * (bn == 'off')}" for seed in range(3) for bn in ("on", "off")]
    Path("runs.csv").write_text("\n".join(["bn,seed,fid", *lines]))
    assert call(monkeypatch, "judge", "runs.csv", "--factor", "bn", "--figures", "pdf") == 0
    assert capsys.readouterr().out == "Figures for papers: judged/*.pdf\n"
    assert sorted(path.name for path in Path("judged").iterdir()) == ["fid-effects.pdf", "fid-runs.pdf"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("judge", "none.csv", "--factor", "a"), "none.csv: No such file or directory"),
        (("judge", "none.csv", "--factor", "a", "--margin", "much"), '--margin much: valid: a share such as "5 %" or'),
        (("judge", "none.csv", "--factor", "a", "--baseline", "a"), "--baseline a: valid: FACTOR=LEVEL"),
        (("score", "none"), "none: no such file or folder"),
        (("score", ".", "--device", "tpu"), "--device tpu: not supported"),
        (("score", ".", "--device", "cuda:99"), "--device cuda:99: this machine has "),
        (("score", ".", "--inception-weights", "w.pth"), "--inception-weights w.pth: no such file"),
        (("score", ".", "--dataset", "folder:none"), "--dataset folder:none: no such folder"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


EYES = """
from torch.nn import functional

def embed(images):
    return functional.adaptive_avg_pool2d(images, 4).mean(1).flatten(1)
"""


def test_few_images_are_shown_with_kid_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warm(tmp_path / "results")
    digits = load_dataset("mnist-10k", 28, tmp_path).images[:600, 0].numpy()
    np.save("few.npy", digits[:300])
    np.save("dark.npy", digits[300:] // 2)
    assert call(monkeypatch, "score", "few.npy", "dark.npy") == 0
    shown = capsys.readouterr().out
    assert "FID against" not in shown
    assert "recall" not in shown
    assert "few.npy: 300 images, fewer than the 1,280 that FID needs for 64 features: KID alone, with its 95 %" in shown
    scores = pd.read_csv("scores.csv")
    low, kid, high = (f"{scores[name][1]:.4g}" for name in ("kid_low", "kid", "kid_high"))
    assert f"{kid} [{low}, {high}]" in shown
    assert scores["fid"].isna().tolist() == [True, True, False]


def test_images_are_scored_against_saved_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Grey images become colour, so the mean over three equal channels is the grey one."""
    (tmp_path / "cli_eyes.py").write_text(EYES)
    digits = load_dataset("mnist-10k", 28, tmp_path).images[:400]
    real, fake = (functional.adaptive_avg_pool2d(images / 255, 4).flatten(1).double() for images in digits.split(200))
    np.savez("statistics.npz", mu=real.mean(0).numpy(), sigma=real.T.cov().numpy())
    np.savez("wrong.npz", mu=np.zeros(3), sigma=np.eye(2))
    np.savez("small.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.save("fake.npy", digits[200:, 0].numpy())
    np.save("few.npy", digits[:31, 0].numpy())
    command = ("score", "fake.npy", "--features", "cli_eyes:embed", "--allow-code", "--statistics")
    assert call(monkeypatch, *command, "statistics.npz") == 0
    shown = capsys.readouterr().out
    assert "FID alone: statistics.npz has a mean and a covariance, and no images." in shown
    assert pd.read_csv("scores.csv")["fid"][0] == pytest.approx(frechet_distance(real, fake), rel=1e-4)
    for name, message in (
        ("wrong.npz", "wrong.npz: mu is (3,) and sigma (2, 2); valid: an .npz file with mu, (D,), and sigma, (D, D)"),
        ("small.npz", "small.npz: statistics of 3 features, and cli_eyes:embed has 16; valid: the extractor"),
        ("fake.npy", "fake.npy: cannot be read ("),
        ("none.npz", "none.npz: no such file; valid: an .npz file with mu"),
    ):
        assert call(monkeypatch, *command, name) == 2
        assert message in capsys.readouterr().err
    assert call(monkeypatch, *command, "statistics.npz", "few.npy") == 2
    assert "few.npy: 31 images; valid: at least " in capsys.readouterr().err
