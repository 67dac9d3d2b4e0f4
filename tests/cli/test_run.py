from __future__ import annotations

from pathlib import Path

import pytest

from tests.calls import call


@pytest.mark.parametrize("is_native", [True, False])
def test_plan_says_that_a_processor_has_no_bfloat16(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_native: bool
) -> None:
    monkeypatch.setattr("gan_ablate.training.runtime.has_native_bf16", lambda: is_native)
    assert call(monkeypatch, "plan", "--grid", "precision") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert ("precision = bf16: this processor has no bfloat16 arithmetic" in output) is not is_native
    assert call(monkeypatch, "plan", "--grid", "beta1") == 0
    assert "bfloat16" not in capsys.readouterr().out


def test_grids_are_planned_together(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "plan", "--grid", "beta1", "--grid", "dropout", "--seeds", "2") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Adam's β1" in output
    assert "Dropout in the discriminator" in output
    assert "12 runs to compute" in output  # three and four variants, of which they share one, by two seeds


def test_plan_runs_a_batch_through_a_users_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("odd_nets.py").write_text("from torch import nn\ndef generator():\n    return nn.Linear(100, 7)\n")
    Path("mine.toml").write_text(
        'base = "mlp"\n[factors.g]\nbaseline = "a"\nlevels.a = {}\n'
        'levels.b = { generator = { kind = "module", path = "odd_nets:generator" } }\n'
    )
    assert call(monkeypatch, "plan", "--grid", "mine.toml") == 2
    assert "valid: with --allow-code" in capsys.readouterr().err
    assert call(monkeypatch, "plan", "--grid", "mine.toml", "--allow-code") == 2
    assert "given (4, 100), it gives (4, 7) of torch.float32; valid: (4, 1, 28, 28)" in capsys.readouterr().err
