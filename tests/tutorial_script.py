"""A training script as tutorials print them: it knows nothing of who runs it. The tests run it as ``train.py``."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from gan_ablate.atomic_io import read_asset

parser = argparse.ArgumentParser()
parser.add_argument("--bn", choices=["on", "off"])
parser.add_argument("--lr", type=float)
parser.add_argument("--seed", type=int)
parser.add_argument("--num", type=int)
opt = parser.parse_args()

torch.manual_seed(opt.seed)
with np.load(io.BytesIO(read_asset("mnist-10k-train.npz")[0])) as digits:
    images = torch.from_numpy(digits["images"]).float().view(-1, 784) / 127.5 - 1

norm = nn.BatchNorm1d(128) if opt.bn == "on" else nn.Identity()
G = nn.Sequential(nn.Linear(64, 128), norm, nn.ReLU(), nn.Linear(128, 784), nn.Tanh())
D = nn.Sequential(nn.Linear(784, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
criterion = nn.BCEWithLogitsLoss()
optimizer_g = torch.optim.Adam(G.parameters(), lr=opt.lr, betas=(0.5, 0.999))
optimizer_d = torch.optim.Adam(D.parameters(), lr=opt.lr, betas=(0.5, 0.999))
real_label, fake_label = torch.ones(64, 1), torch.zeros(64, 1)

NUM_ITERATIONS = 20
for i in range(NUM_ITERATIONS):
    real, fake = images[torch.randint(len(images), (64,))], G(torch.randn(64, 64))
    loss_d = criterion(D(real), real_label) + criterion(D(fake.detach()), fake_label)
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()
    loss_g = criterion(D(fake), real_label)
    optimizer_g.zero_grad()
    loss_g.backward()
    optimizer_g.step()
    print(f"[{i}/{NUM_ITERATIONS}] Loss_D: {loss_d.item():.4f} Loss_G: {loss_g.item():.4f}")

G.eval()
Path("samples").mkdir()
with torch.no_grad():
    drawn = ((G(torch.randn(opt.num, 64)) + 1) * 127.5).round().byte().view(-1, 28, 28).numpy()
for i, image in enumerate(drawn):
    Image.fromarray(image).save(f"samples/{i:05d}.png")
