"""The environment of a run: describe the machine and the versions of the software."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from gan_ablate.training.precision import has_native_bf16

_PACKAGES = ("gan-ablate", "torch", "torchvision", "torchmetrics", "numpy")


def describe_environment(device: torch.device) -> dict[str, str]:
    """Name the processor, the threads, the versions and, in a checkout, the git revision."""
    environment = {
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # one processor's name may stand for many kinds
        "bfloat16": "native" if has_native_bf16() else "emulated",
        "cores": str(os.cpu_count()),
        "threads_per_run": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
    }
    if device.type == "cuda":
        environment["gpu"] = torch.cuda.get_device_name(device)
    revision = _git_revision()
    if revision:
        environment["revision"] = revision
    return environment


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """Return the checkout's commit, with a ``+`` where the package's files differ from it; None outside a checkout."""
    package = Path(__file__).parents[1]
    root = package.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short", "HEAD").strip()
        # Whatever was written elsewhere, reports among it, did not compute anything.
        changes = _git(root, "status", "--porcelain", "--", package.name)
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+" if changes else commit


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
