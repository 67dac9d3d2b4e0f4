"""Checks of a user's code before training: each network that would spoil a run is refused in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_ablate.design.config import RunConfig
from gan_ablate.design.user_code import UserCode
from gan_ablate.errors import UserError
from gan_ablate.training.user_code import allow_code
from gan_ablate.training.user_code_check import check_user_code
from tests.configs import make_config

NETS = '''
import random
import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm, weight_norm

class Images(nn.Module):
    """A generator whose last activation is given."""
    def __init__(self, last="tanh", norm="none"):
        super().__init__()
        layer = nn.Linear(16, 32)
        if norm == "weight":
            layer = parametrizations.weight_norm(layer)
        if norm == "old_weight":
            layer = weight_norm(layer)
        self.net = nn.Sequential(layer, nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 784))
        self.last = last
    def forward(self, z):
        x = self.net(z)
        x = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu, "none": lambda x: x}[self.last](x)
        return x.view(-1, 1, 28, 28)

class Other(Images):
    """What people write, and PyTorch does not see or take."""
    def __init__(self, what):
        super().__init__()
        self.first = nn.Linear(16, 16)
        if what == "list":
            self.first, self.layers = nn.Identity(), [nn.Linear(16, 16)]
        if what == "dict":
            self.first, self.scales = nn.Identity(), {"a": nn.Parameter(torch.ones(16))}
        if what == "lazy":
            self.first = nn.LazyLinear(16)
        if what == "half":
            self.first = nn.Linear(16, 16).half()
        if what == "twice":
            self.again = [self.first]
    def forward(self, z):
        return super().forward(self.first(z))

class Logits(nn.Module):
    def __init__(self, last=None, norm=None, zero=False, wrap=None):
        super().__init__()
        layers = [nn.Flatten(), nn.Linear(784, 16)]
        if wrap == "old":
            layers[1] = spectral_norm(layers[1])
        if wrap == "new":
            layers[1] = parametrizations.spectral_norm(layers[1])
        if norm:
            layers.append(getattr(nn, norm)(16))
        layers += [nn.LeakyReLU(0.2), nn.Linear(16, 1)]
        if zero:
            nn.init.zeros_(layers[-1].weight)
            nn.init.zeros_(layers[-1].bias)
        if last:
            layers.append(getattr(nn, last)())
        self.net = nn.Sequential(*layers)
    def forward(self, x):
        return self.net(x)

class Counting(Images):
    """Its output depends on how often it was called, which no buffer says."""
    def __init__(self):
        super().__init__()
        self.calls = 0
    def forward(self, z):
        self.calls += 1
        return super().forward(z) * (0.5 if self.calls % 3 else 1.0)

class Uncopied(Images):
    def __init__(self):
        super().__init__()
        self.scale = self.net[0].weight.norm()
    def forward(self, z):
        return super().forward(z)

class Seeding(Images):
    def __init__(self, what):
        super().__init__()
        {"torch": torch.manual_seed, "numpy": np.random.seed, "python": random.seed}[what](0)

class SeedingCalls(Images):
    def forward(self, z):
        np.random.seed(1)
        return super().forward(z)

class Setting(Images):
    def __init__(self, what):
        super().__init__()
        if what == "dtype":
            torch.set_default_dtype(torch.float64)
        if what == "threads":
            torch.set_num_threads(3)
        if what == "cudnn":
            torch.backends.cudnn.benchmark = True
        if what == "deterministic":
            torch.use_deterministic_algorithms(True)

class SettingCalls(Images):
    def forward(self, z):
        torch.set_num_threads(3)
        return super().forward(z)

class Average:
    """A loss with a moving average that checkpoints do not see."""
    def __init__(self):
        self.mean = 0.0
    def discriminator(self, real, fake):
        self.mean = 0.5 * self.mean + 0.5 * real.detach().mean()
        return (nn.functional.softplus(-real) + nn.functional.softplus(fake)).mean() + self.mean * fake.mean()
    def generator(self, fake):
        return nn.functional.softplus(-fake).mean()

class AverageInBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
    def discriminator(self, real, fake):
        self.mean.mul_(0.5).add_(0.5 * real.detach().mean())
        return (nn.functional.softplus(-real) + nn.functional.softplus(fake)).mean() + self.mean.clone() * fake.mean()
    def generator(self, fake):
        return nn.functional.softplus(-fake).mean()
'''


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "checked_nets.py").write_text(NETS, "utf-8")
    yield tmp_path
    sys.modules.pop("checked_nets", None)


def with_code(folder: Path, **parts: Any) -> RunConfig:
    """Build a run of parts from the module above; other fields are set as they are."""
    code = UserCode(folder, is_allowed=True)
    given = {
        name: {"kind": "module", **part} if isinstance(part, dict) and "path" in part else part
        for name, part in parts.items()
    }
    data = code.complete({"latent_dim": 16, **given}, "test")
    allow_code(code.paths)
    return make_config("mlp", **data)


def images(**arguments: Any) -> dict[str, Any]:
    return {"path": "checked_nets:Images", **arguments}


def logits(**arguments: Any) -> dict[str, Any]:
    return {"path": "checked_nets:Logits", **arguments}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "parts",
    [
        {"generator": images(), "discriminator": logits()},
        {"generator": images(last="none"), "discriminator": logits(zero=True, initialised="by_itself")},
        {"generator": images(norm="old_weight"), "discriminator": logits(wrap="old"), "ema_decay": 0.9},
        {"generator": images(norm="weight"), "discriminator": logits(wrap="new"), "ema_decay": 0.9},
        {"discriminator": logits(norm="BatchNorm1d")},
        {"generator": {"path": "checked_nets:Other", "what": "twice"}},
        {"discriminator": logits(norm="LayerNorm"), "penalty": {"kind": "r1", "gamma": 1.0}},
        {"loss": {"path": "checked_nets:AverageInBuffer"}},
    ],
    ids=[
        "plain",
        "unbounded and zero",
        "old norms",
        "parametrizations",
        "batch norm",
        "also in a list",
        "layer norm",
        "buffer",
    ],
)
def test_networks_as_people_write_them_pass(folder: Path, parts: dict[str, Any]) -> None:
    check_user_code(with_code(folder, **parts))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"discriminator": logits(last="Sigmoid")},
         r"discriminator \(checked_nets:Logits\): its outputs stay in \[0, 1\], as behind a sigmoid"),
        ({"generator": images(last="sigmoid")},
         r"generator \(checked_nets:Images\): its pixels are never below 0, at most 1, and images are in \[-1, 1\]"),
        ({"generator": {"path": "checked_nets:Other", "what": "list"}},
         r"generator \(checked_nets:Other\): Other.layers holds layers or parameters in a list, where nothing trains"),
        ({"generator": {"path": "checked_nets:Other", "what": "dict"}}, "Other.scales .* in a dict, .*ModuleDict"),
        ({"generator": {"path": "checked_nets:Other", "what": "lazy"}}, "checked_nets:Other: fails .* uninitialized"),
        ({"generator": {"path": "checked_nets:Other", "what": "half"}}, "checked_nets:Other.*: fails .* same dtype"),
        ({"generator": images(last="relu")}, "its pixels are never below 0, at most .*, and images are"),
        ({"discriminator": logits(norm="BatchNorm1d"), "penalty": {"kind": "gradient"}},
         r"penalty = 'gradient': .* \(checked_nets:Logits\) mixes the images of a batch, as batch norm does"),
        ({"discriminator": logits(norm="BatchNorm1d"), "penalty": {"kind": "r1"}}, "penalty = 'r1': .* mixes"),
        ({"generator": {"path": "checked_nets:Counting"}}, "Counting: a run does not go on from a checkpoint as"),
        ({"loss": {"path": "checked_nets:Average"}}, "Average: a run does not go on from a checkpoint as without it"),
        ({"generator": {"path": "checked_nets:Uncopied"}, "ema_decay": 0.9},
         r"a training step \(checked_nets:Uncopied\): fails \(RuntimeError: Only Tensors created explicitly"),
        *(({"generator": {"path": "checked_nets:Seeding", "what": what}},
           rf"generator \(checked_nets:Seeding\): calls {call}\S* when it is made, so every seed starts from the same")
          for what, call in (("torch", "torch.manual_seed"), ("numpy", "numpy.random.seed"), ("python", "random"))),
        ({"generator": {"path": "checked_nets:SeedingCalls"}}, "SeedingCalls: calls numpy.random.seed in a step, so"),
        *(({"generator": {"path": "checked_nets:Setting", "what": what}},
           rf"path = 'checked_nets:Setting': sets {setting} \(it was .*\) for all that this process trains; valid: wit")
          for what, setting in (("dtype", "torch.set_default_dtype = torch.float64"),
                                ("threads", "torch.set_num_threads = 3"),
                                ("cudnn", "torch.backends.cudnn.benchmark = True"),
                                ("deterministic", "torch.use_deterministic_algorithms = True"))),
        ({"generator": {"path": "checked_nets:SettingCalls"}}, "checked_nets:SettingCalls: sets torch.set_num_thread"),
    ],
)  # fmt: skip
def test_what_would_spoil_a_run_is_refused_in_a_line(folder: Path, parts: dict[str, Any], message: str) -> None:
    state, num_threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(UserError, match=message) as wrong:
        check_user_code(with_code(folder, **parts))
    assert "\n" not in str(wrong.value)
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert torch.get_num_threads() == num_threads
    assert torch.equal(state, torch.get_rng_state())


def test_a_shipped_run_needs_no_check() -> None:
    check_user_code(make_config("mlp"))
