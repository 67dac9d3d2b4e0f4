from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import gpu
from gan_ablate.errors import UserError


def measure(out: Path, subject: str, *, add: bool = False) -> dict[str, Any]:
    """On a CPU, where a step cannot be a graph."""
    gpu.main(turns=1, turn_sec=0, subject=[subject], device="cpu", out=out, add=add)
    content: dict[str, Any] = json.loads((out / "gpu.json").read_text())
    return content


def test_the_page_has_what_was_timed(tmp_path: Path) -> None:
    content = measure(tmp_path, "mlp")
    assert [row["precision"] for row in content["sides"]] == ["fp32", "tf32", "bf16"]
    assert all(row["plain, it/s"] > 0 and row["kernel by kernel, it/s"] > 0 for row in content["sides"])
    assert "| mlp" in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
def test_models_are_added_to_those_of_the_same_machine(tmp_path: Path) -> None:
    first = measure(tmp_path, "mlp")
    both = measure(tmp_path, "mlp-dropout", add=True)
    assert both["sides"][:3] == first["sides"]
    assert [row["model"] for row in both["sides"]] == ["mlp"] * 3 + ["mlp-dropout"] * 3
    assert "mlp: medians of 1 turns of 0 seconds. Then, another time: mlp-dropout:" in (tmp_path / "gpu.md").read_text()
    again = measure(tmp_path, "mlp", add=True)
    assert [call["models"] for call in again["calls"]] == [["mlp-dropout"], ["mlp"]]
    again["environment"]["cpu"] = "another"
    (tmp_path / "gpu.json").write_text(json.dumps(again))
    with pytest.raises(UserError, match=r"gpu\.json was measured elsewhere \(cpu 'another', here "):
        measure(tmp_path, "mlp", add=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--device cuda: there is no GPU here; valid: cpu"):
        gpu.main(out=tmp_path)
    assert not list(tmp_path.iterdir())
