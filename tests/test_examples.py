"""The examples run: the notebook as it stands, and the grids on scripts of ours with the public ones' interface."""

from __future__ import annotations

import ast
import json
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.grid import load_grid
from gan_ablate.design.plan import plan
from gan_ablate.execution.context import RunContext
from gan_ablate.execution.run import execute
from gan_ablate.execution.store import Store
from tests.features import warm


def read_cells() -> list[str]:
    """Read the code of the notebook's cells."""
    file = resources.files("gan_ablate").joinpath("examples/first_grid.ipynb")
    notebook = json.loads(file.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cell(code: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does, and return the value of its last expression."""
    tree = ast.parse(code)
    last = tree.body[-1]
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(tree.body[:-1], []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.slow
def test_notebook_plans_runs_plots_and_estimates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    warm(tmp_path / "results")
    mpl.use("agg")
    names: dict[str, Any] = {}
    shown = [run_cell(code, names) for code in read_cells()]
    planned, runs, _, _, effects = shown
    assert planned.num_runs == len(runs) == 9
    assert set(runs["status"]) == {"completed"}
    assert names["axes"].get_xlabel().startswith("FID")
    assert len(names["panels"].axes.flat) == 5
    assert effects["effect"].tolist() == ["beta1 0.0", "beta1 0.9"]
    assert "percent_change" in effects


PYTORCH_GAN = """
import argparse, os
import numpy as np
import torch
import torch.nn as nn
from torchvision.utils import save_image
os.makedirs("images", exist_ok=True)
parser = argparse.ArgumentParser()
for name in ("n_epochs", "batch_size", "n_cpu", "latent_dim", "channels", "n_critic", "sample_interval"):
    parser.add_argument("--" + name, type=int, default={"latent_dim": 100, "channels": 1}.get(name, 2))
parser.add_argument("--img_size", type=int, default=SIZE)
for name in ("lr", "b1", "b2"):
    parser.add_argument("--" + name, type=float, default=0.5)
opt = parser.parse_args()
print(opt)
class datasets:
    def MNIST(root, train, download): assert os.path.isdir(root), root
class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(opt.latent_dim, opt.img_size ** 2)
    def forward(self, z):
        return torch.tanh(self.l1(z)).view(-1, opt.channels, opt.img_size, opt.img_size)
def block(normalize=True, bn=True):
    if normalize:
        print("G has batch norm")
    if bn:
        print("D has batch norm")
block()
lambda_gp = 10
print("the penalty has weight", lambda_gp)
generator = Generator()
discriminator = nn.Linear(2, 1)
os.makedirs("../../data/mnist", exist_ok=True)
dataloader = [0, 1, 2]
datasets.MNIST(
        "../../data/mnist",
        train=True,
        download=True,
)
for epoch in range(opt.n_epochs):
    for i, _ in enumerate(dataloader):
        gen_imgs = generator(torch.Tensor(np.random.normal(0, 1, (25, opt.latent_dim))))
        loss = gen_imgs.mean().item()
        values = (epoch, opt.n_epochs, i, len(dataloader), loss, loss)
        print("[Epoch %d/%d] [Batch %d/%d] [D loss: %f] [G loss: %f]" % values)
        save_image(gen_imgs.data[:25], "images/%d.png" % (3 * epoch + i), nrow=5, normalize=True)
"""

PYTORCH_DCGAN = """
import argparse, random
import torch
import torch.nn as nn
import torchvision.utils as vutils
parser = argparse.ArgumentParser()
parser.add_argument('--dataset', required=True)
parser.add_argument('--dataroot', required=False)
parser.add_argument('--workers', type=int, default=2)
parser.add_argument('--imageSize', type=int, default=64)
parser.add_argument('--nz', type=int, default=100)
parser.add_argument('--niter', type=int, default=25)
parser.add_argument('--beta1', type=float, default=0.5)
parser.add_argument('--outf', default='.')
parser.add_argument('--manualSeed', type=int)
opt = parser.parse_args()
random.seed(opt.manualSeed)
torch.manual_seed(opt.manualSeed)
if opt.dataset in ['imagenet', 'folder', 'lfw']:
    dataset = open("no such file")
    nc = 3
elif opt.dataset == 'mnist':
    dataset = list(range(3))
    nc = 1
nz = int(opt.nz)
class Generator(nn.Module):
    def __init__(self, ngpu):
        super().__init__()
        self.main = nn.Sequential(nn.ConvTranspose2d(nz, nc, 64), nn.BatchNorm2d(nc), nn.Tanh())
    def forward(self, input):
        output = self.main(input)
        return output
netG = Generator(1)
real_label = 1
fake_label = 0
print("real images are", real_label)
for epoch in range(opt.niter):
    for i, data in enumerate(dataset):
        output = netG(torch.randn(8, nz, 1, 1))
        loss = output.mean().item()
        print('[%d/%d][%d/%d] Loss_D: %.4f Loss_G: %.4f D(x): %.4f D(G(z)): %.4f / %.4f'
              % (epoch, opt.niter, i, len(dataset), loss, loss, 0, 0, 0))
    vutils.save_image(output.detach(), '%s/fake_samples_epoch_%03d.png' % (opt.outf, epoch), normalize=True)
    torch.save(netG.state_dict(), '%s/netG_epoch_%d.pth' % (opt.outf, epoch))
"""

GAN = "PyTorch-GAN/implementations/{0}/{0}.py"
SEEDED = "random, NumPy and PyTorch were seeded before the script began (external.seed_globals)"
LOADED = "sampled with the weights of netG_epoch_1.pth, the last file that matches"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place", "script", "printed", "absent", "note"),
    [
        ("pytorch_gan_gan", GAN.format("gan"), PYTORCH_GAN, "D has batch", "G has batch", SEEDED),
        ("pytorch_gan_dcgan", GAN.format("dcgan"), PYTORCH_GAN, "G has batch", "D has batch", SEEDED),
        ("pytorch_gan_wgan_gp", GAN.format("wgan_gp"), PYTORCH_GAN, "weight 1\n", "weight 10", SEEDED),
        ("pytorch_dcgan", "examples/dcgan/main.py", PYTORCH_DCGAN, "images are 0.9\n", "images are 1", LOADED),
    ],
)
def test_grid_runs_a_script_with_the_interface_of_a_public_one(
    tmp_path: Path, name: str, place: str, script: str, printed: str, absent: str, note: str
) -> None:
    script = script.replace("SIZE", "32" if name == "pytorch_gan_dcgan" else "28")
    text = resources.files("gan_ablate").joinpath(f"examples/{name}.toml").read_text("utf-8")
    for path, content in ((place, script), (f"{name}.toml", text)):
        (tmp_path / "mine" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / path).write_text(content, "utf-8")
    overrides = ["epochs=2", "scoring.num_samples=1280"]
    planned = plan(load_grid(tmp_path / "mine" / f"{name}.toml"), overrides=overrides, allow_code=True)
    assert len(planned.variants) == 4
    config = planned.variants[3].config
    assert isinstance(config, ExternalConfig)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir=str(tmp_path / "data"), folders=planned.folders)
    record = execute(config, context, lambda _: None)
    assert (record.status, record.message) == ("completed", "")
    assert record.history["step"] == [0, 1, 2, 3, 4, 5]
    assert record.scoring is not None
    assert record.scoring.final is not None
    assert note in record.notes
    folder = Store(tmp_path / "out").run_dir(record.run_id)
    output = (folder / "output.txt").read_text()
    assert printed in output
    assert absent not in output
    assert (tmp_path / "mine" / place).read_text() == script  # the script itself stays as it is
    assert (folder / "code" / place).read_text() != script
