from __future__ import annotations

from types import SimpleNamespace

import pytest

from gan_ablate.errors import UserError
from gan_ablate.training import device
from gan_ablate.training.device import find_device


def test_the_cpu_is_always_there() -> None:
    assert find_device("cpu").type == "cpu"


@pytest.mark.parametrize(("num", "words"), [(0, "0 CUDA devices"), (1, "1 CUDA device"), (2, "2 CUDA devices")])
def test_a_gpu_that_is_not_there_is_refused(num: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: num)
    with pytest.raises(UserError, match=f"--device cuda:2: this machine has {words}; use cpu"):
        find_device("cuda:2")


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "cuda:1000", "mps", "", "CUDA"])
def test_devices_of_other_kinds_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="not supported; valid: cpu, cuda, cuda:0, …"):
        find_device(name)


@pytest.mark.parametrize("largest", [2**62, 2**25])
def test_blocks_are_kept_by_new_and_by_old_libraries(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    """One that refuses the threshold asked for would stay at its own, and no longer move it."""
    thresholds: dict[int, int] = {}

    class Library:
        def mallopt(self, parameter: int, value: int) -> int:
            is_refused = parameter == device._M_MMAP_THRESHOLD and value > largest
            if not is_refused:
                thresholds[parameter] = value
            return int(not is_refused)

    monkeypatch.setattr(device, "_load_glibc", Library)
    device.keep_memory()
    assert thresholds == {
        device._M_MMAP_THRESHOLD: min(2**30, largest),
        device._M_TRIM_THRESHOLD: 2**30,
    }


def test_other_systems_libraries_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", loaded.append)
    device.keep_memory()
    device.release_memory()
    assert loaded == []


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One without ``malloc_trim`` is none that these settings are for."""
    library = SimpleNamespace(mallopt=pytest.fail)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda _: library)
    assert device._load_glibc() is None
    device.keep_memory()
    device.release_memory()
