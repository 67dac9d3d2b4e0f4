from __future__ import annotations

import io
import itertools

import pytest
import torch

from bench.plain import mlp
from bench.printed import main, train_as_printed
from bench.subjects import SUBJECTS


def test_the_printed_mlp_loop_never_teaches_g() -> None:
    networks, config = mlp(), SUBJECTS["mlp"].config(batch_size=4)
    before = [[tensor.clone() for tensor in network.parameters()] for network in networks]
    log = io.StringIO()
    loop = train_as_printed(networks, [(torch.rand(4, 1, 28, 28),)] * 2, config, log)
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
    loop = train_as_printed(subject.build_plain(), [(torch.rand(4, 1, 56, 56),)], config, io.StringIO())
    with pytest.raises(RuntimeError, match="shape"):
        next(loop)


def test_both_loops_are_scored(capsys: pytest.CaptureFixture[str]) -> None:
    main("mlp", iterations=2)
    output = capsys.readouterr().out
    assert "mlp as printed: FID " in output
    assert "mlp as meant: FID " in output
