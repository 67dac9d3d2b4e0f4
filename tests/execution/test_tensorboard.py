from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.errors import UserError
from gan_ablate.execution.store import Store
from gan_ablate.execution.tensorboard import check_tensorboard, write_events
from tests.synthetic import save_runs


def test_event_files_hold_what_the_records_do(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra: pip install gan-ablate[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store, planned = Store(tmp_path), plan(load_grid("beta1"), seeds=2)
    save_runs(store, planned, lambda cell, _: None if cell.label.endswith("0.9") else 20.0)
    for _ in range(2):  # the second time in the place of the first
        assert write_events(store, [planned]) == tmp_path / "tensorboard"
    folders = sorted({path.parent for path in (tmp_path / "tensorboard").rglob("events.*")})
    assert len(folders) == 6
    (folder,) = [path for path in folders if path.parent.name == planned.baseline.label and path.name == "seed-1"]
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    record = store.load_record(planned.baseline.run_id(1))
    assert record is not None
    assert record.scoring is not None
    loss = events.Scalars("training/loss_d")
    assert [event.step for event in loss] == record.history["step"]
    assert [event.value for event in loss] == pytest.approx(record.history["loss_d"])
    curve = events.Scalars("fid_along_training")
    assert [event.value for event in curve] == pytest.approx(record.scoring.curve_fid)
    assert [event.value for event in events.Scalars("scores/fid")] == [pytest.approx(20.0)]
    images = events.Images("samples")
    assert [image.step for image in images] == [0, 1500]
    assert (images[0].width, images[0].height) == (242, 242)
    assert "_hparams_/session_start_info" in events.summary_metadata
    diverged = EventAccumulator(str(next(path for path in folders if path.parent.name.endswith("0.9"))))
    diverged.Reload()
    assert "scores/fid" not in diverged.Tags()["scalars"]


def test_the_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match="--tensorboard: needs the package tensorboard; valid: pip install"):
        check_tensorboard()
