"""Generators of users' scripts: what of a file is run, which weights fit, and how a script is launched."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gan_ablate.execution import saved_generator
from gan_ablate.execution.saved_generator import RefusedError, find_weights, slice_module

SCRIPT = """
from __future__ import annotations
import argparse, os
import torch
import torch.nn as nn
import torch.backends.cudnn as cudnn
os.makedirs("made")
cudnn.benchmark = True
parser = argparse.ArgumentParser()
parser.add_argument("--nz", type=int, default=3)
parser.add_argument("--dataset", default="mnist")
opt = parser.parse_args()
print(opt)
torch.manual_seed(1)
data = open("no such file")
if opt.dataset == "mnist":
    data = open("no such file")
    nc = 1
elif opt.dataset == "cifar10":
    nc = 3
try:
    import no_such_package
except ImportError:
    no_such_package = None
nz = int(opt.nz)
def block(n):
    return nn.Linear(n, nc * SIDE * SIDE)
class Generator(nn.Module):
    def __init__(self, width):
        super().__init__()
        assert no_such_package is None
        self.main = nn.Sequential(block(nz), nn.Unflatten(1, (nc, SIDE, SIDE)))
    def forward(self, input):
        output = torch.tanh(self.main(input))
        return output
SIDE = 4
netG = Generator(5)
for epoch in range(10):
    SIDE = 1 / 0
    output = netG(data)
"""


def keep(script: str, wanted: str = "Generator") -> str:
    return ast.unparse(slice_module(ast.parse(textwrap.dedent(script)), wanted))


def test_only_what_a_class_needs_is_kept() -> None:
    kept = keep(SCRIPT)
    for text in ("parser.add_argument('--nz'", "opt = parser.parse_args()", "nc = 1", "nc = 3", "nz = int", "SIDE = 4"):
        assert text in kept
    for text in ("makedirs", "benchmark", "print", "manual_seed", "no such file", "netG", "1 / 0", "for "):
        assert text not in kept
    compile(kept, "kept", "exec")


def test_settings_of_a_name_and_of_the_path_are_kept_and_training_is_not() -> None:
    script = """
        import sys
        sys.path.append("..")
        from helpers import *
        options = {"width": 3}
        options["depth"] = 4
        with open("x") as file:
            width = int(file.read())
        if __name__ == "__main__":
            main()
            options.update(a=1)
        class Generator:
            width = options["depth"] + width
    """
    kept = keep(script)
    assert "main()" not in kept
    for text in ("sys.path", "import *", "options['depth'] = 4", "with open('x') as file", "options.update(a=1)"):
        assert text in kept


def weights(module: nn.Module) -> dict[str, Any]:
    return module.state_dict()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda own: own,
        lambda own: {f"module.{name}": value for name, value in own.items()},
        lambda own: {**{f"netG.{name}": v for name, v in own.items()}, "netD.0.weight": torch.zeros(2, 2)},
        lambda own: {"epoch": 3, "generator": own, "discriminator": {"0.weight": torch.zeros(1, 1)}},
        lambda own: {"epoch": 3, "state_dict": {f"generator.module.{name}": v for name, v in own.items()}},
    ],
)
def test_weights_are_found_whole_in_a_table_and_behind_a_prefix(wrap: Any) -> None:
    own = weights(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    found = find_weights(wrap(own), own)
    assert found.keys() == own.keys()
    assert all(found[name] is own[name] for name in own)


def test_of_two_sets_of_weights_the_key_names_one() -> None:
    own = weights(nn.Linear(2, 3))
    saved = {"netG": own, "netG_ema": {name: value + 1 for name, value in own.items()}}
    with pytest.raises(RefusedError, match=r"'netG', 'netG_ema' all fit the module; valid: external.samples.key = one"):
        find_weights(saved, own)
    assert torch.equal(find_weights(saved, own, "netG_ema")["weight"], own["weight"] + 1)
    with pytest.raises(RefusedError, match=r"no weights at 'G' of the module's names and shapes \(weight 3×2, bias 3"):
        find_weights(saved, own, "G")


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(RefusedError, match=r"\(weight 3×2, bias 3, …\); the file has weight, bias, …"):
        find_weights(weights(nn.Linear(2, 4)), weights(nn.Linear(2, 3)))


def order(folder: Path, **fields: Any) -> dict[str, Any]:
    latents = {"latent_shape": [2], "latent_distribution": "normal", "latent_seed": 0}
    return {"seed": None, "generator": "", "target": str(folder / "x.npy"), "num_images": 6, **latents, **fields}


def launch(folder: Path, script: str, *words: str, **fields: Any) -> subprocess.CompletedProcess[str]:
    (folder / "train.py").write_text(textwrap.dedent(script))
    words = words or (str(folder / "train.py"),)
    command = [sys.executable, saved_generator.__file__, json.dumps(order(folder, **fields)), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


MODULES = """
import torch
generator = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Unflatten(1, (1, 1, 2)))
class Trainer: netG = generator
trainer = Trainer()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["generator", "trainer.netG"])
def test_a_global_is_sampled_in_eval_mode_when_its_script_ends(tmp_path: Path, name: str) -> None:
    ended = launch(tmp_path, MODULES + "torch.set_default_dtype(torch.float64)\nraise SystemExit(0)", generator=name)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    latents = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    expected = latents / (1 + 1e-5) ** 0.5
    assert np.allclose(np.load(tmp_path / "x.npy")[:, 0, 0], expected.numpy())


@pytest.mark.slow
def test_a_name_that_is_no_module_is_refused_with_those_that_are(tmp_path: Path) -> None:
    ended = launch(tmp_path, MODULES, generator="netG")
    assert ended.returncode == 1
    assert ended.stdout == "external.generator = netG: no module of this name at the end; valid: generator\n"


@pytest.mark.slow
def test_a_script_runs_as_python_would_run_it(tmp_path: Path) -> None:
    script = """
        import json, sys, helper
        assert sys.modules["__main__"].__dict__ is globals()
        def typed(x: int): ...
        print(json.dumps([__name__, __file__, sys.argv, sys.path[0], helper.x, str(typed.__annotations__)]))
        sys.exit(7)
    """
    (tmp_path / "helper.py").write_text("x = 1")
    path = str(tmp_path / "train.py")
    ended = launch(tmp_path, script, path, "--lr", "3")
    assert ended.returncode == 7
    assert json.loads(ended.stdout) == ["__main__", path, [path, "--lr", "3"], str(tmp_path), 1, "{'x': <class 'int'>}"]
    plain = subprocess.run([sys.executable, path, "--lr", "3"], capture_output=True, text=True, check=False)
    assert plain.stdout == ended.stdout
    of_module = launch(tmp_path, script, "-m", "train", "--lr", "3")
    assert json.loads(of_module.stdout) == json.loads(ended.stdout)
    assert launch(tmp_path, "1 / 0").stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.slow
def test_the_seed_of_all_three_generators_is_set(tmp_path: Path) -> None:
    script = "import random, numpy, torch\nprint(random.random(), numpy.random.rand(), torch.rand(1).item())"
    first, again, other = (launch(tmp_path, script, seed=seed).stdout.split() for seed in (1, 1, 2))
    assert first == again
    assert not {*first} & {*other}
