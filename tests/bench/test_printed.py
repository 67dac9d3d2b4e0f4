from __future__ import annotations

import io
import itertools
from functools import partial

import pytest
import torch

from bench.plain import dcgan_faces, mlp
from bench.printed import main, train_as_printed, train_without_detaching
from bench.subjects import SUBJECTS, Subject
from gan_ablate.training.data import take_batch
from gan_ablate.training.trainer import Trainer


def test_the_printed_mlp_loop_never_teaches_g() -> None:
    networks, config = mlp(), SUBJECTS["mlp"].config(batch_size=4)
    before = [[tensor.clone() for tensor in network.parameters()] for network in networks]
    log = io.StringIO()
    loop = train_as_printed("mlp", networks, [(torch.rand(4, 1, 28, 28),)] * 2, config, log)
    for _ in itertools.islice(loop, 5):
        pass
    assert len(log.getvalue().splitlines()) == 5
    changed = [
        any(not torch.equal(old, new) for old, new in zip(of_network, network.parameters(), strict=True))
        for of_network, network in zip(before, networks, strict=True)
    ]
    assert changed == [False, True]


def test_the_printed_noise_of_dcgan_fc_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    subject = SUBJECTS["dcgan-fc"]
    config = subject.config(batch_size=4)
    loop = train_as_printed("dcgan-fc", subject.build_plain(), [(torch.rand(4, 1, 56, 56),)], config, io.StringIO())
    with pytest.raises(RuntimeError, match="shape"):
        next(loop)


NARROW_FACES = Subject(
    "narrow faces",
    "dcgan-faces",
    {
        "batch_size": 4,
        "generator": {"kind": "dcgan", "base_channels": 8, "stem": "conv", "bias": "none"},
        "discriminator": {"kind": "dcgan", "base_channels": 8, "head": "conv", "bias": "none"},
    },
    partial(dcgan_faces, 8),
)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("generator_gradient", ["own", "accumulated"])
def test_only_an_accumulated_gradient_is_that_of_the_printed_loop_of_dcgan_faces(generator_gradient: str) -> None:
    loss = {"kind": "bce", "computed_from": "probabilities"}
    config = NARROW_FACES.config(loss=loss, generator_gradient=generator_gradient)
    images = torch.randint(0, 256, (12, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    trainer, twin, networks = Trainer(config, images), Trainer(config, images), NARROW_FACES.build_plain()
    for plain, ours in zip(networks, (trainer.generator, trainer.discriminator), strict=True):
        plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    batches = [(take_batch(images, twin.next_indices()),) for _ in range(3)]
    draw = partial(twin.sample_latents, "discriminator")
    loop = train_without_detaching(networks, batches, config, io.StringIO(), draw)
    for _ in batches:
        trainer.step()
        next(loop)
    differences = [
        (actual - expected).abs().max().item()
        for expected, actual in zip(networks.generator.parameters(), trainer.generator.parameters(), strict=True)
    ]
    if generator_gradient == "accumulated":
        assert max(differences) < 1e-11
    else:
        assert min(differences) > 1e-4  # a learning rate of 2e-4, three steps


@pytest.mark.slow
def test_both_loops_are_scored(capsys: pytest.CaptureFixture[str]) -> None:
    main("mlp", iterations=2)
    output = capsys.readouterr().out
    assert "mlp as printed: FID " in output
    assert "mlp as meant: FID " in output
