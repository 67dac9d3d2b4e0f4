from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from gan_ablate.errors import UserError
from gan_ablate.execution.context import RunContext
from gan_ablate.execution.run import execute
from gan_ablate.execution.store import FILTERS_FILE, INTERPOLATION_FILE, Store
from gan_ablate.scoring import representation
from gan_ablate.scoring.features import Features
from gan_ablate.scoring.representation import (
    NUM_FILTERS,
    NUM_IMAGES_PER_FILTER,
    class_aucs,
    collect_features,
    draw_filters,
    interpolate,
    latent_arithmetic,
    probe,
)
from gan_ablate.scoring.score import sample_images, scoring_latents
from gan_ablate.scoring.scores import ProbeScores, RepresentationScores
from gan_ablate.training.models import build_discriminator, build_generator
from tests.configs import make_config, make_images

SCORING = {"features": "digits", "num_samples": 1_280, "curve_samples": 1_280, "curve_points": 1}


def test_a_filter_that_knows_a_class_has_scikit_learns_area() -> None:
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    activations = torch.randn(200, 3, generator=stream) + (labels == 2)[:, None] * torch.tensor([0.0, 1.0, 9.0])
    activations = activations.round(decimals=1)  # with ties
    aucs = class_aucs(activations, labels)
    assert aucs.shape == (3, 4)
    for unit in range(3):
        for label in range(4):
            expected = roc_auc_score((labels == label).numpy(), activations[:, unit].numpy())
            assert aucs[unit, label] == pytest.approx(expected, abs=1e-12)
    assert aucs[2, 2] == 1


def test_a_probe_learns_what_is_there_and_is_judged_on_what_it_did_not_see() -> None:
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    telling = torch.randn(600, 5, generator=stream) + 4 * nn.functional.one_hot(labels, 5)
    noise = torch.randn(600, 200, generator=stream)
    train, test = torch.arange(300), torch.arange(300, 600)
    assert probe(telling, labels, train, test) > 0.95
    assert probe(noise, labels, train, test) < 0.5  # which it could learn by heart


def test_features_are_those_of_the_hidden_blocks_and_leave_d_as_it_was() -> None:
    config = make_config("dcgan-28")
    discriminator = build_discriminator(config)
    before = {name: tensor.clone() for name, tensor in discriminator.state_dict().items()}
    images = make_images(config, 6)
    features = collect_features(discriminator, images)
    assert [x.shape[0] for x in features] == [6] * len(features)
    assert [x.shape[-1] for x in features] == [14, 7]
    head = discriminator.get_submodule("output")(features[-1]).flatten()
    with torch.inference_mode():
        assert torch.allclose(head, discriminator.eval()(images.float() / 127.5 - 1), atol=1e-6)
    after = discriminator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Painter(nn.Module):
    """Paints each image in the brightness of the latent's first number."""

    def forward(self, z: Tensor) -> Tensor:
        return z[:, :1, None, None].sign().expand(-1, 1, 28, 28) * 0.5


class Brightness:
    """Takes dark images for zeros and bright ones for ones."""

    name, sha256, num_features, is_fast = "brightness", "0" * 64, 1, True

    def __call__(self, images: Tensor) -> Features:
        mean = images.float().mean((1, 2, 3))[:, None]
        return Features(mean, torch.cat([127 - mean, mean - 127], 1))


def test_arithmetic_turns_one_class_into_another_and_shuffled_means_do_not() -> None:
    config = make_config("mlp", scoring={**SCORING, "num_samples": 4_000})
    share, shuffled = latent_arithmetic(config, Painter(), Brightness())
    # The means lie 0.8 on either side, so a latent within 1.6 of zero crosses over: 89 % of a normal distribution's.
    assert share == pytest.approx(0.89, abs=0.1)
    assert shuffled == pytest.approx(0.0, abs=0.1)


def test_a_generator_of_one_class_allows_no_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representation, "MIN_LATENTS_PER_CLASS", 10_000)
    assert latent_arithmetic(make_config("mlp", scoring=SCORING), Painter(), Brightness()) == (None, None)


def test_a_way_between_latents_begins_and_ends_at_them() -> None:
    config = make_config("mlp")
    images = interpolate(config, build_generator(config))
    rows = images.reshape(representation.NUM_PATHS, representation.NUM_PATH_STEPS, *images.shape[1:])
    latents, _ = scoring_latents(config, 2 * representation.NUM_PATHS)
    ends = sample_images(build_generator(config), latents, torch.device("cpu"))
    difference = (torch.cat([rows[:, 0], rows[:, -1]]).int() - ends.int()).abs().max()
    assert difference <= 1  # a grey level, where rounding differs


@pytest.mark.parametrize("preset", ["dcgan-28", "mlp", "mlp-dropout"])
def test_filters_are_shown_with_what_raises_them(preset: str) -> None:
    config = make_config(preset)
    discriminator = build_discriminator(config)
    images = make_images(config, 12)
    last = collect_features(discriminator, images)[-1]
    activations = last.amax((2, 3)) if last.ndim == 4 else last
    drawn = draw_filters(discriminator, images, activations, [3, 5])
    assert drawn.shape == (2 * 2 * NUM_IMAGES_PER_FILTER, 1, 28, 28)
    most = activations[:, 5].argmax()
    assert torch.equal(drawn[2 * NUM_IMAGES_PER_FILTER], images[most])
    gradients = drawn[NUM_IMAGES_PER_FILTER : 2 * NUM_IMAGES_PER_FILTER]
    assert gradients.unique().numel() > 2


def test_guided_gradients_flow_only_where_they_raise() -> None:
    network = nn.Sequential()
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.eye(2))
        second.weight.copy_(torch.tensor([[1.0, -1.0]]))
    network.add_module("flatten", nn.Flatten())
    network.add_module("hidden1", nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True)))
    images = torch.tensor([255, 150], dtype=torch.uint8).reshape(1, 1, 1, 2).repeat(NUM_IMAGES_PER_FILTER, 1, 1, 1)
    drawn = draw_filters(network, images, torch.ones(NUM_IMAGES_PER_FILTER, 1), [0])
    # Plain gradients would be 1 and -1: the second pixel's would come out as 0.
    assert drawn[NUM_IMAGES_PER_FILTER].flatten().tolist() == [255, 128]


@pytest.mark.usefixtures("quick_kid")
def test_a_run_that_asks_for_it_keeps_it(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representation, "NUM_LABELS", (30, 60))
    config = make_config("mlp", scoring={**SCORING, "representation": True})
    plain = make_config("mlp", scoring=SCORING)
    assert config.run_id != plain.run_id
    record = execute(config, context, lambda _: None)
    assert record.scoring is not None
    learnt = record.scoring.representation
    assert learnt is not None
    assert [of_number.num_labels for of_number in learnt.probes] == [30, 60]
    assert all(0.1 < of_number.pixels <= 1 for of_number in learnt.probes)
    assert 0.5 < learnt.filter_auc <= 1
    assert {np.sign(learnt.filter_auc_untrained - 0.5)} == {1}
    store = Store(Path(context.out))
    assert store.load_record(config.run_id) == record
    assert store.picture(config.run_id, FILTERS_FILE) is not None
    assert store.picture(config.run_id, INTERPOLATION_FILE) is not None
    assert len(store.sample_sheets(config.run_id)) == 2
    assert NUM_FILTERS == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conditional": True, "num_classes": 10}, "scoring.representation = True: it takes a classifier"),
        ({"scoring": {**SCORING, "features": "none"}}, "scoring.representation = True: it takes a classifier"),
    ],
)
def test_it_takes_classes_and_a_d_that_is_not_told_them(changes: dict[str, object], words: str) -> None:
    scoring = {**SCORING, **changes.pop("scoring", {}), "representation": True}  # type: ignore[dict-item]
    with pytest.raises(UserError, match=words):
        make_config("mlp", scoring=scoring, **changes)


def test_gains_are_over_the_better_control() -> None:
    probes = [ProbeScores(num_labels=100, trained=0.8, untrained=0.7, pixels=0.75)]
    learnt = RepresentationScores(
        probes=probes, arithmetic=0.5, arithmetic_shuffled=0.1, filter_auc=0.7, filter_auc_untrained=0.6
    )
    assert learnt.probe_gain(100) == pytest.approx(0.05)
    assert learnt.probe_gain(30) is None
    assert learnt.arithmetic_gain == pytest.approx(0.4)
    assert learnt.model_copy(update={"arithmetic": None}).arithmetic_gain is None
