from __future__ import annotations

import pytest

from gan_ablate.errors import UserError
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
