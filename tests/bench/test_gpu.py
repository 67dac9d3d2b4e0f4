from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench import gpu


def test_the_page_has_what_was_timed(tmp_path: Path) -> None:
    """On a CPU, where a step cannot be a graph."""
    gpu.main(
        [
            "--device",
            "cpu",
            "--subject",
            "mlp",
            "--turns",
            "1",
            "--turn-sec",
            "0",
            "--pack",
            "2",
            "--out",
            str(tmp_path),
        ]
    )
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["precision"] for row in content["sides"]] == ["fp32", "bf16"]
    assert all(row["plain, it/s"] > 0 and row["kernel by kernel, it/s"] > 0 for row in content["sides"])
    assert content["packs"][0]["2 packed, runs/h"] > 0
    page = (tmp_path / "gpu.md").read_text()
    assert "| mlp" in page
    assert "2 packed, runs/h" in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--out", str(tmp_path)])
    assert "there is no GPU here; valid: cpu" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
