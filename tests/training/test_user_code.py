"""Users' networks, losses and penalties: imported, hashed by their source, checked and trained."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn

from gan_ablate.api import run_grid
from gan_ablate.design.config import RunConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import Plan, plan
from gan_ablate.errors import UserError
from gan_ablate.execution.context import Compute, RunContext
from gan_ablate.execution.executors.worker import check
from gan_ablate.training.models import build_discriminator, build_generator
from gan_ablate.training.runtime import read_streams, seed_streams, set_streams
from gan_ablate.training.trainer import Trainer, capture_state, pack_weights, restore_state
from gan_ablate.training.user_code import allow_code
from gan_ablate.training.user_code_check import check_user_code
from tests.features import warm
from tests.quick_worker import QUICK_START

NETS = """
import torch
from torch import nn

class Generator(nn.Module):
    def __init__(self, width=32, size=28, bias=0.0):
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(nn.Linear(100, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, size**2))
        self.shift = nn.Parameter(torch.rand(1) + bias)
    def forward(self, z):
        return torch.tanh(self.layers(z) + self.shift).view(-1, 1, self.size, self.size)

class Maps(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.ConvTranspose2d(100, 1, 28)
    def forward(self, z):
        return torch.tanh(self.layer(z))

def discriminator(width=16, outputs=1):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.LeakyReLU(0.2), nn.Linear(width, outputs))

class Loss:
    def __init__(self, scale=1.0):
        self.scale = scale
    def discriminator(self, real, fake):
        return self.scale * (nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean())
    def generator(self, fake):
        return self.scale * nn.functional.softplus(-fake).mean()

class Drift:
    def __init__(self, weight):
        self.weight = weight
    def __call__(self, judge, real, fake):
        return self.weight * judge(real).square().mean()

def frozen():
    return Generator().requires_grad_(False)

def number():
    return 3

def leaving():
    raise SystemExit(5)

class Vector:
    def discriminator(self, real, fake): return real
    def generator(self, fake): return fake.mean()
"""

GRID = """
title = "Mine"
base = "mlp"
[factors.network]
baseline = "ours"
levels.ours = {}
levels.mine = { LEVEL }
[budget.standard]
steps = 10
seeds = 1
num_samples = 1280
curve_samples = 1280
curve_points = 1
"""

MINE = 'generator = { kind = "module", path = "my_nets:Generator", width = 48 }'


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Another test's module of the same name is another module."""
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("my_nets", "my_package")]:
        del sys.modules[name]


def write(folder: Path, level: str = MINE, nets: str = NETS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "my_nets.py").write_text(nets, "utf-8")
    path = folder / "mine.toml"
    path.write_text(GRID.replace("LEVEL", level), "utf-8")
    return path


def resolve(folder: Path, level: str = MINE, nets: str = NETS) -> Plan:
    planned = plan(load_grid(write(folder, level, nets)), allow_code=True)
    allow_code(planned.folders)
    return planned


def config_of(folder: Path, level: str = MINE, nets: str = NETS) -> RunConfig:
    return resolve(folder, level, nets).variants[1].trained


def test_nothing_is_run_that_is_not_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, nets="raise SystemExit('it was run')")
    with pytest.raises(UserError, match=r"generator.path = 'my_nets:Generator': code of yours; valid: with"):
        plan(load_grid(path))
    config = plan(load_grid(path), allow_code=True).variants[1].trained  # which does not run it either
    with pytest.raises(UserError, match=r"my_nets@[0-9a-f]{8}, which this command was not allowed to run"):
        build_generator(config)


def test_a_run_is_named_by_its_arguments_and_its_source(tmp_path: Path) -> None:
    names = {
        config_of(tmp_path / "a").run_id,
        config_of(tmp_path / "a", MINE.replace("48", "49")).run_id,
        config_of(tmp_path / "a", nets=NETS + "\nx = 1").run_id,
        config_of(tmp_path / "a", 'generator = { kind = "module", path = "my_nets:Maps", latents = "maps" }').run_id,
    }
    assert len(names) == 4
    assert config_of(tmp_path / "b").run_id == config_of(tmp_path / "a").run_id


def test_a_package_is_named_by_all_of_its_files(tmp_path: Path) -> None:
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("width = 32")
    (package / "nets.py").write_text(NETS + "\nfrom my_package.parts import width")
    level = MINE.replace("my_nets:", "my_package.nets:")
    first = config_of(tmp_path, level)
    assert len(build_generator(first).state_dict()) > 5
    (package / "parts.py").write_text("width = 33")
    assert config_of(tmp_path, level).run_id != first.run_id
    with pytest.raises(UserError, match="it has changed since these runs were planned"):
        build_generator(first)


def test_networks_start_from_the_seeds_streams(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    torch.manual_seed(1)
    first = build_generator(config).state_dict()
    torch.manual_seed(2)
    again, other = build_generator(config).state_dict(), build_generator(config.with_seed(1)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["network.layers.0.weight"], other["network.layers.0.weight"])
    assert not torch.equal(first["network.shift"], other["network.shift"])
    # mlp's preset draws linear layers as PyTorch does, from streams of their names; by itself the module does so.
    own = MINE.replace("width = 48", 'width = 48, initialised = "by_itself"')
    by_itself = build_generator(config_of(tmp_path, own)).state_dict()
    assert not torch.equal(first["network.layers.0.weight"], by_itself["network.layers.0.weight"])
    assert torch.equal(first["network.shift"], by_itself["network.shift"])


def test_init_applies_to_user_networks(tmp_path: Path) -> None:
    level = MINE + ', init = { kind = "normal", std = 0.5 }'
    weight = build_generator(config_of(tmp_path, level)).state_dict()["network.layers.3.weight"]
    assert weight.std().item() == pytest.approx(0.5, rel=0.05)


def test_spectral_norm_applies_to_a_user_discriminator(tmp_path: Path) -> None:
    level = 'discriminator = { kind = "module", path = "my_nets:discriminator", spectral_norm = true }'
    network = build_discriminator(config_of(tmp_path, level))
    weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert [torch.linalg.matrix_norm(weight, 2).item() for weight in weights] == pytest.approx([1, 1], rel=0.2)
    assert network(torch.zeros(5, 1, 28, 28)).shape == (5,)


@pytest.mark.slow
def test_grid_of_user_networks_loss_and_penalty_is_trained_and_scored(tmp_path: Path) -> None:
    level = (
        MINE + ', discriminator = { kind = "module", path = "my_nets:discriminator" }'
        ', loss = { kind = "module", path = "my_nets:Loss", scale = 2.0 }'
        ', penalty = { kind = "module", path = "my_nets:Drift", weight = 0.001 }'
    )
    planned = plan(load_grid(write(tmp_path / "mine", level)), allow_code=True)
    runs = run_grid(planned, warm(tmp_path / "out"), Compute(jobs=1))
    assert list(runs["status"]) == ["completed"] * 2
    assert runs["fid"].notna().all()
    assert (runs["fid_batch_stats"] != runs["fid"])[1]  # its batch norm was found
    again = run_grid(planned, warm(tmp_path / "again"), Compute(jobs=1))
    assert list(again["fid"]) == list(runs["fid"])


@pytest.mark.slow
def test_user_loss_trains_as_the_shipped_loss_it_copies(tmp_path: Path) -> None:
    level = 'loss = { kind = "module", path = "my_nets:Loss" }'
    runs = run_grid(
        plan(load_grid(write(tmp_path / "m", level)), allow_code=True), warm(tmp_path / "out"), Compute(jobs=1)
    )
    ours, mine = runs["fid"]
    assert mine == pytest.approx(ours, rel=0.02)


@pytest.mark.parametrize(
    ("level", "message"),
    [
        (MINE.replace("width = 48", "size = 32"), r"generator: given \(4, 100\), it gives \(4, 1, 32, 32\) of "),
        (MINE.replace("Generator", "Maps").replace(", width = 48", ""),
         r"generator \(my_nets:Maps\), given \(4, 100\): fails \(RuntimeError: .*; latents = .maps. gives it"),
        (MINE.replace("width", "depth"), r"path = 'my_nets:Generator': cannot be called with \(depth=48\) \(TypeError"),
        (MINE.replace(":Generator", ":Nothing"), r"cannot be imported \(AttributeError: module 'my_nets' has no attr"),
        (MINE.replace(":Generator", ":leaving").replace(", width = 48", ""), r"called with \(\) \(SystemExit: 5"),
        (MINE.replace(":Generator", ":number").replace(", width = 48", ""), "makes a int; valid: a torch.nn.Module"),
        (MINE.replace(":Generator", ":frozen").replace(", width = 48", ""), r"my_nets:frozen\): it has no parameters"),
        ('discriminator = { kind = "module", path = "my_nets:discriminator", outputs = 3 }',
         r"discriminator: given \(4, 1, 28, 28\), it gives \(4, 3\) of torch.float32; valid: \(4,\)"),
        ('loss = { kind = "module", path = "my_nets:Vector" }',
         r"my_nets:Vector.discriminator: gives a tensor of \(4,\); valid: a tensor of one number"),
        ('loss = { kind = "module", path = "my_nets:Drift", weight = 1 }', "loss.discriminator .*: fails .Attribute"),
        ('penalty = { kind = "module", path = "my_nets:number" }', r"penalty .my_nets:number.: fails .TypeError: '"),
    ],
)  # fmt: skip
def test_unfit_user_code_is_refused_before_training(tmp_path: Path, level: str, message: str) -> None:
    planned = resolve(tmp_path / "mine", level)
    with pytest.raises(UserError, match=message) as wrong:
        check_user_code(planned.variants[1].trained)
    assert "\n" not in str(wrong.value)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir="d", folders=planned.folders)
    assert str(check(planned.variants[1].config, context)) == str(wrong.value)
    assert check(planned.variants[0].config, context) is None


@pytest.mark.parametrize(
    ("level", "message"),
    [
        (MINE.replace("my_nets:", "my_netz:"), "generator.path = 'my_netz': no such module in .*, nor installed"),
        (MINE.replace("my_nets:", "my_nets."), r"generator.path = \"my_nets.Generator\": [Ss]tring should match"),
        (MINE.replace("width", "code"), "generator.code: planning sets it; valid: leave it out"),
        ('generator = { kind = "module" }', "generator.path is missing"),
        (MINE + ", scoring.representation = true", "scoring.representation = True: it takes an mlp or a dcgan"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_one_line(tmp_path: Path, level: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as wrong:
        resolve(tmp_path, level)
    assert "\n" not in str(wrong.value)


def test_code_that_changes_between_plan_and_run_is_not_run(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    (tmp_path / "my_nets.py").write_text(NETS + "\nx = 1")
    with pytest.raises(UserError, match=r"my_nets.py: it has changed since these runs were planned"):
        build_generator(config)


def test_a_helper_of_the_module_counts(tmp_path: Path) -> None:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "sizes.py").write_text("width = 32")
    nets = NETS.replace(
        "        self.size = size\n", "        self.size = size\n        from my_package.sizes import width\n"
    )
    planned = resolve(tmp_path, nets=nets)
    first = planned.variants[1].trained
    assert list(planned.sources.values()) == [("my_nets.py", "my_package/sizes.py")]
    assert len(build_generator(first).state_dict()) > 5  # imported when it was called, from the grid's folder
    (tmp_path / "my_package" / "sizes.py").write_text("width = 33")
    assert config_of(tmp_path, nets=nets).run_id != first.run_id
    with pytest.raises(UserError, match=r"sizes.py: it has changed since these runs were planned; run the same"):
        build_generator(first)
    assert len(build_generator(config_of(tmp_path, nets=nets)).state_dict()) > 5
    assert sys.modules["my_package.sizes"].width == 33  # it was imported anew


def test_a_file_that_no_import_statement_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my_package.py").write_text("")
    nets = NETS + "\nimport importlib\nimportlib.import_module('my_' + 'package')"
    with pytest.raises(UserError, match=r"loads .*/my_package.py, which no import statement names; valid: import my_p"):
        build_generator(config_of(tmp_path, nets=nets))


def test_module_named_as_the_standard_librarys_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('hidden')")
    (tmp_path / "sched.py").write_text("raise SystemExit('hidden')")  # nobody has imported it so far
    assert len(build_generator(config_of(tmp_path, nets=NETS + "\nimport json")).state_dict()) > 5
    assert not str(importlib.import_module("sched").__file__).startswith(str(tmp_path))
    with pytest.raises(
        UserError, match=r"generator.path = 'my_nets': imports .*/queue.py: its name is that of a modul"
    ):
        config_of(tmp_path, nets=NETS + "\nfrom queue import Queue")


@pytest.mark.parametrize("line", ["torch.manual_seed(999)", "torch.rand(3)", "import numpy; numpy.random.seed(1)"])
def test_random_numbers_during_import_change_no_weights(tmp_path: Path, line: str) -> None:
    config = config_of(tmp_path, nets=NETS.replace("import torch\n", f"import torch\n{line}\n", 1))
    torch.manual_seed(5)
    position = torch.get_rng_state()
    first = build_generator(config).state_dict()  # imports it
    assert torch.equal(position, torch.get_rng_state())
    again = build_generator(config).state_dict()
    plain = build_generator(config_of(tmp_path)).state_dict()  # of another content, but the same draws
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        assert torch.equal(weight, plain[name])


def test_random_numbers_kept_from_import_are_the_same_in_every_process(tmp_path: Path) -> None:
    config = config_of(tmp_path, nets=NETS + "\nfixed_noise = torch.rand(3)")
    noises = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        sys.modules.pop("my_nets", None)
        build_generator(config)
        noises.append(sys.modules["my_nets"].fixed_noise)
    assert torch.equal(*noises)


def test_runs_of_user_code_have_their_revision(tmp_path: Path) -> None:
    planned = resolve(tmp_path)
    assert [variant.config.revisions for variant in planned.variants] == [(), ("own_parts_seeded",)]


SHARED = """
import torch
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(100, 100), nn.Linear(100, 100)
        self.second.weight = self.first.weight
        self.same = self.first
        self.last = nn.Linear(100, 784)
    def forward(self, z):
        return torch.tanh(self.last(self.same(self.second(self.first(z))))).view(-1, 1, 28, 28)
"""


def test_shared_tensors_are_averaged_once_and_saved(tmp_path: Path) -> None:
    level = 'generator = { kind = "module", path = "my_nets:Tied" }, ema_decay = 0.5'
    config = config_of(tmp_path, level, SHARED)
    check_user_code(config)
    trainer = Trainer(config, torch.randint(256, (128, 1, 28, 28)).to(torch.uint8))
    average = trainer.average
    assert average is not None
    expected, weights = torch.zeros(100, 100, dtype=torch.float64), 0.0
    for _ in range(4):
        trainer.step()
        expected = 0.5 * expected + 0.5 * trainer.generator.state_dict()["network.first.weight"]
        weights = 0.5 * weights + 0.5
        found = average.state_dict()
        for name in ("first", "second", "same"):
            torch.testing.assert_close(found[f"network.{name}.weight"].double(), expected / weights)
    loaded = build_generator(config)
    loaded.load_state_dict(load(pack_weights(average)))
    z = torch.randn(2, 100)
    assert torch.equal(loaded(z), average(z))


DRAWING = (
    NETS
    + """
import random
import numpy as np

class Noisy(Generator):
    def forward(self, z):
        return super().forward(z + random.random() + np.random.rand())

def dropping():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))

class Remembering(Loss):
    steps = 0
    def generator(self, fake):
        self.steps += 1
        return super().generator(fake) / self.steps
"""
)


def test_random_numbers_before_a_run_do_not_change_it(tmp_path: Path) -> None:
    level = (
        'generator = { kind = "module", path = "my_nets:Noisy" }'
        ', discriminator = { kind = "module", path = "my_nets:dropping" }'
        ', loss = { kind = "module", path = "my_nets:Remembering" }'
    )
    config = config_of(tmp_path, level, DRAWING)
    images = torch.randint(256, (128, 1, 28, 28)).to(torch.uint8)
    losses = []
    for seed in (1, 2):
        seed_streams(seed)
        trainer = Trainer(config, images)
        losses.append([(terms.loss_d.item(), terms.loss_g.item()) for terms in (trainer.step() for _ in range(3))])
    assert losses[0] == losses[1]


def test_checkpoint_holds_the_streams_that_user_code_uses(tmp_path: Path) -> None:
    level = 'generator = { kind = "module", path = "my_nets:Noisy" }'
    config = config_of(tmp_path, level, DRAWING)
    images = torch.randint(256, (128, 1, 28, 28)).to(torch.uint8)
    trainer, again = Trainer(config, images), Trainer(config, images)
    trainer.step()
    state = capture_state(trainer)
    expected = trainer.step()
    seed_streams(7)
    restore_state(again, state)
    assert torch.equal(expected.loss_g, again.step().loss_g)


def test_streams_go_back_to_where_they_were() -> None:
    for seed in (1, 2):
        seed_streams(seed)
        random.gauss(0, 1)
        np.random.standard_normal(3)  # noqa: NPY002
        before = read_streams()
        expected = random.gauss(0, 1), random.random(), np.random.standard_normal(3).tolist()  # noqa: NPY002
        set_streams(before)
        assert expected == (random.gauss(0, 1), random.random(), np.random.standard_normal(3).tolist())  # noqa: NPY002


@pytest.mark.slow
def test_a_run_with_shared_tensors_ends_beside_a_module_named_as_the_standard_librarys(tmp_path: Path) -> None:
    write(tmp_path, 'generator = { kind = "module", path = "my_nets:Tied" }, ema_decay = 0.5', SHARED)
    (tmp_path / "queue.py").write_text("raise SystemExit('hidden')")
    warm(tmp_path / "out")
    # As the installed command starts: without the current folder among those that modules are looked for in.
    start = f"{QUICK_START}from gan_ablate.__main__ import start\nstart()"
    command = [sys.executable, "-P", "-c", start, "run", "--grid", "mine.toml"]
    ended = subprocess.run(
        [*command, "--jobs", "1", "--allow-code", "--out", "out"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    statuses = [json.loads(path.read_text())["status"] for path in tmp_path.glob("out/runs/*/record.json")]
    assert statuses == ["completed"] * 2
