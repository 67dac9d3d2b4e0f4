from __future__ import annotations

from types import SimpleNamespace

import pytest

from gan_ablate.training import device as allocator


@pytest.mark.parametrize("largest", [2**62, 2**25])
def test_blocks_are_kept_by_new_and_by_old_libraries(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    """One that refuses the threshold asked for would stay at its own, and no longer move it."""
    thresholds: dict[int, int] = {}

    class Library:
        def mallopt(self, parameter: int, value: int) -> int:
            is_refused = parameter == allocator._M_MMAP_THRESHOLD and value > largest
            if not is_refused:
                thresholds[parameter] = value
            return int(not is_refused)

    monkeypatch.setattr(allocator, "_load_glibc", Library)
    allocator.keep_memory()
    assert thresholds == {
        allocator._M_MMAP_THRESHOLD: min(2**30, largest),
        allocator._M_TRIM_THRESHOLD: 2**30,
    }


def test_other_systems_libraries_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", loaded.append)
    allocator.keep_memory()
    allocator.release_memory()
    assert loaded == []


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without ``malloc_trim`` is none that these settings are for."""
    library = SimpleNamespace(mallopt=pytest.fail)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: library)
    assert allocator._load_glibc() is None
    allocator.keep_memory()
    allocator.release_memory()
