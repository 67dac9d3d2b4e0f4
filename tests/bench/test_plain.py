"""The presets against the networks and the loop that the documents print, rebuilt from PyTorch's own layers."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import partial

import pytest
import torch
from torch import nn

from bench.plain import dcgan_faces, train_plainly
from bench.subjects import SUBJECTS, Subject
from gan_ablate.design.grid import list_presets, load_document
from gan_ablate.training.data import take_batch
from gan_ablate.training.models.layers import Dropout
from gan_ablate.training.trainer import Trainer

DOCUMENTS_PARAMETERS = {
    "mlp": (559_632, 533_505),
    "dcgan-upsample": (1_049_985, 98_113),
    "dcgan-64": (12_654_337, 2_763_585),
    "mlp-dropout": (1_486_352, 1_460_225),
    "dcgan-fc": (1_923_521, 669_377),
}
COLOUR_PARAMETERS = (8_007_800, 6_740_400)
"""Of ``dcgan-faces``, whose images are in colour."""

NUM_STEPS = 3
BATCH_SIZE = 4
LEARNING_RATE = 2e-5
"""A tenth of theirs: a sigmoid's probability beyond a logit of 27, which wide networks reach on their second step, is
where ``BCELoss`` bounds its gradient, and BCE on logits does not."""


@pytest.mark.parametrize("name", DOCUMENTS_PARAMETERS)
def test_presets_have_the_documents_parameters(name: str) -> None:
    trainer = Trainer(SUBJECTS[name].config(), torch.zeros(64, 1, 8, 8, dtype=torch.uint8))
    assert tuple(num_parameters((trainer.generator, trainer.discriminator))) == DOCUMENTS_PARAMETERS[name]
    assert tuple(num_parameters(SUBJECTS[name].build_plain())) == DOCUMENTS_PARAMETERS[name]


@pytest.mark.parametrize("name", ["dcgan-faces", "dcgan-paper"])
def test_colour_presets_have_the_documents_parameters(name: str) -> None:
    trainer = Trainer(SUBJECTS[name].config(dataset="cifar10"), torch.zeros(64, 3, 8, 8, dtype=torch.uint8))
    width = {"dcgan-faces": 100, "dcgan-paper": 128}[name]
    plain = dcgan_faces(width, num_channels=3)  # the paper's are counted as these at widths of 128
    assert num_parameters((trainer.generator, trainer.discriminator)) == num_parameters(plain)
    if name == "dcgan-faces":
        assert tuple(num_parameters(plain)) == COLOUR_PARAMETERS


_NARROW = {"kind": "dcgan", "base_channels": 16, "bias": "none"}
COLOUR = Subject(
    "dcgan-faces in colour",
    "dcgan-faces",
    {"dataset": "cifar10", "generator": {**_NARROW, "stem": "conv"}, "discriminator": {**_NARROW, "head": "conv"}},
    partial(dcgan_faces, 16, 3),
)
CASES = {**SUBJECTS, COLOUR.name: COLOUR}


def num_parameters(networks: Iterable[nn.Module]) -> list[int]:
    return [sum(parameter.numel() for parameter in network.parameters()) for network in networks]


def test_every_preset_of_a_document_has_a_plain_twin() -> None:
    documents = {preset for preset in list_presets() if load_document(preset) is not None}
    assert documents | {"dcgan-28"} <= set(SUBJECTS)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
def test_steps_are_the_plain_loops(name: str) -> None:
    """Everything that makes a step fast, against the same mathematics written plainly."""
    config = CASES[name].config(batch_size=BATCH_SIZE, lr_g=LEARNING_RATE, lr_d=LEARNING_RATE)
    stream = torch.Generator().manual_seed(1)
    shape = (NUM_STEPS * BATCH_SIZE, config.num_channels, config.image_size, config.image_size)
    images = torch.randint(0, 256, shape, generator=stream, dtype=torch.uint8)
    trainer, twin = (Trainer(config, images) for _ in range(2))
    networks = CASES[name].build_plain()
    for place, module in enumerate(networks.discriminator):
        if isinstance(module, nn.Dropout):  # ours drops at the same rate, from words of its own
            networks.discriminator[place] = Dropout(module.p)
    for plain, ours in zip(networks, (trainer.generator, trainer.discriminator), strict=True):
        state = [tensor.contiguous() for tensor in ours.state_dict().values()]
        plain.load_state_dict(dict(zip(plain.state_dict(), state, strict=True)))
    batches = [(take_batch(images, twin.next_indices()),) for _ in range(NUM_STEPS)]
    loop = train_plainly(networks, batches, config, io.StringIO(), twin.sample_latents)
    for step in range(NUM_STEPS):
        for take_step in (trainer.step, lambda: next(loop)):
            torch.manual_seed(step)  # dropout
            take_step()
    for plain, ours in zip(networks, (trainer.generator, trainer.discriminator), strict=True):
        for expected, actual in zip(plain.state_dict().values(), ours.state_dict().values(), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-9)
    z, x = twin.sample_latents("generator"), take_batch(images, torch.arange(BATCH_SIZE))
    for is_training in (True, False):
        for plain, ours, given in zip(networks, (trainer.generator, trainer.discriminator), (z, x), strict=True):
            plain.train(is_training)
            ours.train(is_training)
            outputs = []
            for network in (plain, ours):
                torch.manual_seed(0)
                outputs.append(network(given))
            probabilities = outputs[1] if ours is trainer.generator else outputs[1].sigmoid()[:, None]
            torch.testing.assert_close(probabilities, outputs[0], rtol=1e-8, atol=1e-9)
