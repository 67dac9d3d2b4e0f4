"""The examples run: the notebook as it stands, and the grids on scripts of ours with the public ones' interface."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from gan_ablate.design.external import ExternalConfig
from gan_ablate.design.grid import DEFAULT_BUDGETS, Budget, load_grid
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


SMALL = Budget(steps=10, seeds=2, num_samples=1_280, curve_samples=1_280, curve_points=2)
"""Less than the notebook's smoke budget: its cells stand as they are."""


@pytest.mark.slow
def test_notebook_plans_runs_plots_and_estimates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DEFAULT_BUDGETS, "smoke", SMALL)
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

LIGHTNING = """
from argparse import ArgumentParser
import numpy as np
import torch
import torch.nn as nn
from lightning.pytorch.demos.mnist_datamodule import MNISTDataModule
from lightning.pytorch.trainer import Trainer
class Generator(nn.Module):
    def __init__(self, latent_dim: int = 100, img_shape: tuple = (1, 28, 28)):
        super().__init__()
        self.img_shape = img_shape
        def block(in_feat, out_feat, normalize=True):
            layers = [nn.Linear(in_feat, out_feat)]
            if normalize:
                layers.append(nn.BatchNorm1d(out_feat, 0.8))
            return layers
        self.model = nn.Sequential(*block(latent_dim, 8), nn.Linear(8, int(np.prod(img_shape))), nn.Tanh())
    def forward(self, z):
        return self.model(z).view(z.size(0), *self.img_shape)
class GAN(nn.Module):
    def __init__(self, b1):
        super().__init__()
        self.generator = Generator()
        self.discriminator = nn.Linear(784, 1)
        print(self.generator, "b1", b1)
    def log_dict(self, losses, prog_bar=False):
        self.shown = losses if prog_bar else {}
    def training_step(self):
        g_loss = self.generator(torch.randn(4, 100)).mean().item()
        d_loss = g_loss / 2
        self.log_dict({"d_loss": d_loss, "g_loss": g_loss})
def main(args):
    model = GAN(args.b1)
    dm = MNISTDataModule()
    trainer = Trainer(accelerator="gpu", devices=1)
    trainer.fit(model, dm)
if __name__ == "__main__":
    parser = ArgumentParser()
    parser.add_argument("--b1", type=float, default=0.5)
    main(parser.parse_args())
"""

LIGHTNING_PACKAGE = {
    "__init__.py": "",
    "pytorch/__init__.py": "",
    "pytorch/callbacks.py": "class TQDMProgressBar: pass",
    "pytorch/demos/__init__.py": "",
    "pytorch/demos/mnist_datamodule.py": """
import os
class MNISTDataModule:
    def __init__(self, data_dir="./data", num_workers=16, normalize=False):
        assert os.path.isdir(data_dir) and normalize and num_workers == 0
""",
    "pytorch/trainer.py": """
import os, sys
import torch
class Trainer:
    def __init__(self, accelerator, devices, max_epochs, callbacks):
        assert accelerator == "auto" and [type(one).__name__ for one in callbacks] == ["TQDMProgressBar"]
        self.max_epochs = max_epochs
    def fit(self, model, dm):
        folder = "lightning_logs/version_0/checkpoints"
        os.makedirs(folder)
        for epoch in range(self.max_epochs):
            for batch in range(1, 4):
                model.training_step()
                shown = ", ".join(f"{name}={value:.3f}" for name, value in model.shown.items())
                done = f"{batch}/3 [00:00<00:00, 9.93it/s, v_num=0, {shown}]"
                sys.stderr.write(f"\\rEpoch {epoch}:  {33 * batch}%|\u2588\u2588\u258f       | {done}")
            sys.stderr.write("\\n")
        weights = {"epoch": epoch, "state_dict": model.state_dict(), "hyper_parameters": {"img_shape": (1, 28, 28)}}
        torch.save(weights, f"{folder}/epoch={epoch}-step={6 * epoch + 6}.ckpt")
""",
}

MIMICRY = """
import torch
import torch.optim as optim
import torch_mimicry as mmc
from torch_mimicry.nets import sngan

if __name__ == "__main__":
    dataset = mmc.datasets.load_dataset(root='./datasets', name='cifar10')
    netG = sngan.SNGANGenerator32()
    netD = sngan.SNGANDiscriminator32()
    optD = optim.Adam(netD.parameters(), 2e-4, betas=(0.0, 0.9))
    optG = optim.Adam(netG.parameters(), 2e-4, betas=(0.0, 0.9))
    trainer = mmc.training.Trainer(netD=netD, netG=netG, optD=optD, optG=optG,
                                   n_dis=5,
                                   num_steps=100000,
                                   log_dir='./log/example')
    trainer.train()
    mmc.metrics.evaluate(metric='fid')
"""

MIMICRY_PACKAGE = {
    "__init__.py": "from torch_mimicry import datasets, metrics, nets, training",
    "datasets.py": """
import os
def load_dataset(root, name):
    assert os.path.isdir(os.path.join(root, name))
""",
    "metrics.py": "def evaluate(metric): raise SystemError(metric)",
    "nets/__init__.py": "",
    "nets/sngan.py": """
import torch.nn as nn
class SNGANGenerator32(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(128, 3 * 32 * 32)
    def forward(self, x):
        return self.l1(x).tanh().view(-1, 3, 32, 32)
class SNGANDiscriminator32(nn.Linear):
    def __init__(self):
        super().__init__(2, 1)
""",
    "training.py": """
class Trainer:
    def __init__(self, netD, netG, optD, optG, n_dis, num_steps, log_dir):
        self.num_steps = num_steps
        print("n_dis", n_dis, "betas", optG.defaults["betas"], optD.defaults["betas"])
    def train(self):
        print("INFO: Starting training from global step 0...")
        for step in range(1, self.num_steps + 1):
            head = f"INFO: [Epoch 1/1][Global Step: {step}/{self.num_steps}] "
            parts = ["", "D(G(z)): 0.3", "D(x): 0.6", "errD: 1.5", "errG: -0.5", "lr_D: 0.0002", "(0.0100 sec/idx)"]
            print(head + "\\n| ".join(parts))
""",
}


def write_package(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")


@pytest.mark.slow
def test_mimicrys_grid_runs_a_script_with_its_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = resources.files("gan_ablate").joinpath("examples/mimicry_sngan.toml").read_text("utf-8")
    files = {"mimicry_sngan.toml": text, "mimicry/examples/sngan_example.py": MIMICRY}
    write_package(Path("mine"), files)
    write_package(Path("mine/mimicry/torch_mimicry"), MIMICRY_PACKAGE)
    Path("pictures").mkdir()
    for number in range(40):  # stands for CIFAR-10
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3)).astype("uint8")
        Image.fromarray(noise).save(f"pictures/{number}.png")
    options: dict[str, Any] = {"dataset": "folder:pictures", "features": "none", "steps": 4, "allow_code": True}
    planned = plan(load_grid("mine/mimicry_sngan.toml"), overrides=["scoring.num_samples=8"], **options)
    context = RunContext(out="out", data_dir="data", folders=planned.folders)
    config = planned.variants[3].config
    record = execute(config, context, lambda _: None)
    assert (record.status, record.message) == ("completed", "")
    assert record.history == {"step": [1, 2, 3, 4], "loss_d": [1.5] * 4, "loss_g": [-0.5] * 4}
    folder = Store(Path("out")).run_dir(record.run_id)
    assert "n_dis 1 betas (0.5, 0.9) (0.5, 0.9)" in (folder / "output.txt").read_text()
    with np.load(folder / "samples.npz") as samples:
        assert samples["images"].shape == (8, 3, 32, 32)
    assert isinstance(config, ExternalConfig)
    assert "mimicry/torch_mimicry/training.py" in config.files


GAN = "PyTorch-GAN/implementations/{0}/{0}.py"
SEEDED = "random, NumPy and PyTorch were seeded before the script began (external.seed_globals)"
LIGHTNING_PLACE = "pytorch-lightning/examples/pytorch/domain_templates/generative_adversarial_net.py"
LOADED = "sampled with the weights of netG_epoch_1.pth, the last file that matches"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place", "script", "printed", "absent", "note"),
    [
        ("pytorch_gan_gan", GAN.format("gan"), PYTORCH_GAN, "D has batch", "G has batch", SEEDED),
        ("pytorch_gan_dcgan", GAN.format("dcgan"), PYTORCH_GAN, "G has batch", "D has batch", SEEDED),
        ("pytorch_gan_wgan_gp", GAN.format("wgan_gp"), PYTORCH_GAN, "weight 1\n", "weight 10", SEEDED),
        ("pytorch_dcgan", "examples/dcgan/main.py", PYTORCH_DCGAN, "images are 0.9\n", "images are 1", LOADED),
        ("pytorch_lightning_gan", LIGHTNING_PLACE, LIGHTNING, "b1 0.9\n", "BatchNorm", SEEDED),
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
    if name == "pytorch_lightning_gan":
        write_package((tmp_path / "mine" / place).with_name("lightning"), LIGHTNING_PACKAGE)
    overrides = ["epochs=2", "scoring.num_samples=1280"]
    planned = plan(load_grid(tmp_path / "mine" / f"{name}.toml"), overrides=overrides, allow_code=True)
    assert len(planned.variants) == 4
    config = planned.variants[3].config
    assert isinstance(config, ExternalConfig)
    context = RunContext(out=str(warm(tmp_path / "out")), data_dir=str(tmp_path / "data"), folders=planned.folders)
    record = execute(config, context, lambda _: None)
    assert (record.status, record.message) == ("completed", "")
    assert record.history["step"] == ([1, 2, 3, 4, 5, 6] if name == "pytorch_lightning_gan" else [0, 1, 2, 3, 4, 5])
    assert len(record.history["loss_d"]) == len(record.history["loss_g"]) == 6
    assert sorted(path.name for path in (tmp_path / "out" / "runs").iterdir()) == [record.run_id]
    assert record.scoring is not None
    assert record.scoring.final is not None
    assert note in record.notes
    folder = Store(tmp_path / "out").run_dir(record.run_id)
    output = (folder / "output.txt").read_text()
    assert printed in output
    assert absent not in output
    assert (tmp_path / "mine" / place).read_text() == script  # the script itself stays as it is
    assert (folder / "code" / place).read_text() != script
