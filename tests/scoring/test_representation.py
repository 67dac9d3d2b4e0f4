from __future__ import annotations

import hashlib
import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor, nn
from torch.nn import functional

from gan_ablate.errors import UserError
from gan_ablate.execution.context import RunContext
from gan_ablate.execution.run import execute
from gan_ablate.execution.store import FILTERS_FILE, INTERPOLATION_FILE, Store
from gan_ablate.scoring import representation
from gan_ablate.scoring.extractors import Features
from gan_ablate.scoring.representation import (
    NUM_FILTERS,
    NUM_IMAGES_PER_FILTER,
    class_aucs,
    collect_features,
    draw_filters,
    interpolate,
    latent_arithmetic,
    probe,
    study_representation,
)
from gan_ablate.scoring.scorer import sample_images, scoring_latents
from gan_ablate.scoring.scores import ProbeScores, RepresentationScores
from gan_ablate.training.data import ImageDataset
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


def test_probe_is_trained_and_tested_on_different_images() -> None:
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 3
    telling = torch.randn(600, 5, generator=stream) + 4 * nn.functional.one_hot(labels, 5)
    noise = torch.randn(600, 200, generator=stream)
    train, test = torch.arange(300), torch.arange(300, 600)
    assert probe(telling, labels, train, test) > 0.95
    assert probe(noise, labels, train, test) < 0.5  # which it could learn by heart


@pytest.mark.parametrize("iterations", [200, 1])
def test_the_last_fifth_of_the_labelled_images_chooses_the_penalty_as_scikit_learns_grid_search_would(
    monkeypatch: pytest.MonkeyPatch, iterations: int
) -> None:
    """On features of which most are noise, so that penalties differ; where none converges, nobody is told."""
    monkeypatch.setattr(representation, "MAX_ITERATIONS", iterations)
    stream = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (400,), generator=stream)
    features = torch.randn(400, 40, generator=stream) * torch.logspace(-2, 2, 40)
    features[:, 7:20] += features.std(0)[7:20] * (labels[:, None] - 1) / 2
    order = torch.randperm(400, generator=stream)
    accuracies = []
    for num in (33, 58, 90):
        train, test = order[:num], order[200:]
        search = GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=iterations)),
            {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1, 1.0]},
            cv=PredefinedSplit(np.where(np.arange(num) < 4 * num // 5, -1, 0)),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            search.fit(features[train].numpy(), labels[train].numpy())
        accuracies.append(probe(features, labels, train, test))
        assert accuracies[-1] == search.score(features[test].numpy(), labels[test].numpy())
    assert 0.4 < min(accuracies) < 1


def test_a_probe_keeps_to_its_cores_and_hides_no_warning_but_the_one_that_is_expected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_threads: set[int] = set()

    class Watched(LogisticRegression):  # type: ignore[misc]
        def fit(self, *data: object) -> LogisticRegression:
            num_threads.update(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
            warnings.warn("something else", RuntimeWarning, stacklevel=1)
            return super().fit(*data)

    monkeypatch.setattr(representation, "LogisticRegression", Watched)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    labels = torch.arange(60) % 3
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) + labels[:, None]
    with threadpool_limits(2), pytest.warns(RuntimeWarning, match="something else"):
        probe(features, labels, torch.arange(40), torch.arange(40, 60))
    assert num_threads == {1}


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


def assert_untouched(discriminator: nn.Module) -> None:
    for module in discriminator.modules():
        assert module.training
        assert not module._forward_hooks
        assert not module._backward_hooks
    assert all(parameter.requires_grad for parameter in discriminator.parameters())


def test_looking_at_features_and_filters_leaves_nothing_behind() -> None:
    config = make_config("dcgan-28")
    discriminator, images = build_discriminator(config), make_images(config, 6)
    activations = collect_features(discriminator, images)[-1].amax((2, 3))
    assert_untouched(discriminator)
    draw_filters(discriminator, images, activations, [0])
    assert_untouched(discriminator)


def test_maps_are_pooled_to_four_by_four_and_smaller_ones_not_at_all() -> None:
    large, small, units = (
        torch.arange(64.0).reshape(1, 1, 8, 8),
        torch.arange(8.0).reshape(1, 2, 2, 2),
        torch.ones(1, 3),
    )
    pooled = representation._pool([large, small, units])
    greatest = [16 * row + 2 * column + 9 for row in range(4) for column in range(4)]  # of 2×2 each, the lower right
    assert pooled.tolist() == [[*greatest, *range(8), 1, 1, 1]]


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


class Recorder(nn.Module):
    """Paints each image in one of three brightnesses, by the latent's first number, and keeps the latents."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, z: Tensor) -> Tensor:
        self.seen.append(z.clone())
        return (self.classify(z) / 2 - 0.5)[:, None, None, None].expand(-1, 1, 28, 28)

    @staticmethod
    def classify(z: Tensor) -> Tensor:
        """The middle class is rare: 4 % of latents."""
        return (z[:, 0] > -0.05).long() + (z[:, 0] > 0.05).long()


class ThreeShades(Brightness):
    """Takes brightnesses of 64, 128 and 191 for classes, and says so of a fourth that there never is."""

    def __call__(self, images: Tensor) -> Features:
        mean = images.float().mean((1, 2, 3))[:, None]
        return Features(mean, -(mean - torch.tensor([64.0, 128.0, 191.0, 999.0])).abs())


@pytest.mark.parametrize("missing", [0, 1])
def test_arithmetic_moves_latents_by_the_difference_of_their_classes_means(
    monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    config, generator = make_config("mlp", scoring=SCORING), Recorder()
    num_rare = int((Recorder.classify(scoring_latents(config, 1_280)[0]) == 1).sum())
    monkeypatch.setattr(representation, "MIN_LATENTS_PER_CLASS", num_rare + missing)
    share, share_shuffled = latent_arithmetic(config, generator, ThreeShades())
    z, _ = scoring_latents(config, 1_280)
    seen, classes = torch.cat(generator.seen), Recorder.classify(z)
    known = [0, 2] if missing else [0, 1, 2]
    stream = torch.Generator().manual_seed(int(hashlib.sha256(b"0/arithmetic").hexdigest()[:16], 16) >> 1)
    shuffled = classes[torch.randperm(1_280, generator=stream)]
    assert torch.equal(seen[:1_280], z)
    rest = seen[1_280:]
    for found, of_means in ((share, classes), (share_shuffled, shuffled)):
        num_right = num = 0
        for start, end in itertools.permutations(known, 2):
            difference = z[of_means == end].mean(0) - z[of_means == start].mean(0)
            expected = z[classes == start][:20] + difference
            torch.testing.assert_close(rest[:20], expected, rtol=0, atol=1e-5)
            num_right += int((Recorder.classify(expected) == end).sum())
            num += 20
            rest = rest[20:]
        assert found == pytest.approx(num_right / num)
    assert len(rest) == 0


def test_two_classes_are_enough_for_arithmetic_and_one_is_not() -> None:
    class Rarely(Painter):
        def forward(self, z: Tensor) -> Tensor:
            return super().forward(z - 1.2)  # 11 % are bright, 147 of 1,280

    class Never(Painter):
        def forward(self, z: Tensor) -> Tensor:
            return super().forward(z - 2.0)  # 2 %, 29

    config = make_config("mlp", scoring=SCORING)
    assert None not in latent_arithmetic(config, Rarely(), Brightness())
    assert latent_arithmetic(config, Never(), Brightness()) == (None, None)


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


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_latents_on_a_way_are_as_long_as_latents_are(distribution: str) -> None:
    """Evenly spaced on the straight way; of normal latents, stretched to the ends' lengths at that share."""
    config, generator = make_config("mlp", latent_distribution=distribution), Recorder()
    interpolate(config, generator)
    points = torch.cat(generator.seen).reshape(8, 8, config.latent_dim)
    ends, _ = scoring_latents(config, 16)
    for path, (first, last) in enumerate(zip(ends[:8], ends[8:], strict=True)):
        for step in range(8):
            share = step / 7
            expected = (1 - share) * first + share * last
            if distribution == "normal":
                expected = expected / expected.norm() * ((1 - share) * first.norm() + share * last.norm())
            torch.testing.assert_close(points[path, step], expected, rtol=1e-4, atol=1e-5)


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


def test_a_filter_that_nothing_raises_is_shown_in_grey() -> None:
    network = nn.Sequential()
    network.add_module("flatten", nn.Flatten())
    network.add_module("hidden1", nn.Sequential(nn.Linear(2, 1), nn.ReLU()))
    nn.init.constant_(network.get_submodule("hidden1").get_submodule("0").bias, -100)  # type: ignore[arg-type]
    images = torch.zeros(NUM_IMAGES_PER_FILTER, 1, 1, 2, dtype=torch.uint8)
    drawn = draw_filters(network, images, torch.ones(NUM_IMAGES_PER_FILTER, 1), [0])
    assert drawn[NUM_IMAGES_PER_FILTER:].unique().tolist() == [128]


def test_each_images_gradients_are_drawn_on_their_own_scale() -> None:
    """0 lowers the activation most, 255 raises it most: of a sum of squares, whose gradient is twice the image."""

    class SumOfSquares(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.square().flatten(1).sum(1, keepdim=True)

    network = nn.Sequential()
    network.add_module("hidden1", SumOfSquares())
    images = torch.tensor([[10, 20], [30, 20], [150, 100], [255, 40]], dtype=torch.uint8).reshape(4, 1, 1, 2)
    drawn = draw_filters(network, images, torch.tensor([[1.0], [3.0], [2.0], [0.0]]), [0])
    order = [1, 2, 0, 3]  # the greatest activation first
    assert torch.equal(drawn[:4], images[order])
    for found, image in zip(drawn[4:].reshape(4, 2).tolist(), images[order].reshape(4, 2).tolist(), strict=True):
        x = np.array(image) / 127.5 - 1
        assert found == np.round(127.5 * (x / np.abs(x).max() + 1)).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "contrast"), [(128, 30), (32, 100)], ids=["classes alike", "filters alike"])
def test_a_study_compares_d_with_itself_before_training_and_with_pixels(
    monkeypatch: pytest.MonkeyPatch, noise: int, contrast: int
) -> None:
    """Where classes are easily told apart, many filters know one perfectly, and the first of them are shown."""
    monkeypatch.setattr(representation, "NUM_LABELS", (20, 60, 61))
    monkeypatch.setattr(representation, "NUM_TEST_IMAGES", 40)
    small = {"kind": "dcgan", "base_channels": 8}
    config = make_config(image_size=32, generator=small, discriminator=small, scoring=SCORING)  # D has three blocks
    stream = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (100,), generator=stream)
    images = make_images(config, 100) % noise + contrast * labels.byte()[:, None, None, None]
    dataset = ImageDataset("test", images, labels, images, "d" * 64, "invented")
    discriminator, untrained, generator = build_discriminator(config), build_discriminator(config), Painter()
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=stream) * 0.05)
    study = study_representation(config, generator, discriminator, dataset, Brightness())

    # A random part of the images to be judged on and learnt from, the same as for earlier records.
    stream = torch.Generator().manual_seed(int(hashlib.sha256(b"0/probe").hexdigest()[:16], 16) >> 1)
    test, rest = torch.randperm(100, generator=stream).split([40, 60])
    blocks = {"trained": collect_features(discriminator, images), "untrained": collect_features(untrained, images)}
    given = {
        side: torch.cat([functional.adaptive_max_pool2d(maps, 4).flatten(1) for maps in features], 1)
        for side, features in blocks.items()
    }
    given["pixels"] = images.flatten(1).float() / 127.5 - 1
    expected = {num: {side: probe(x, labels, rest[:num], test) for side, x in given.items()} for num in (20, 60)}
    assert {of.num_labels: of.model_dump(exclude={"num_labels"}) for of in study.scores.probes} == expected
    assert len({share for of in expected.values() for share in of.values()}) > 1 or noise == 32
    aucs = {side: class_aucs(features[-1][test].amax((2, 3)), labels[test]) for side, features in blocks.items()}
    assert study.scores.filter_auc == pytest.approx(aucs["trained"].max(axis=1).mean())
    assert study.scores.filter_auc_untrained == pytest.approx(aucs["untrained"].max(axis=1).mean())
    assert study.scores.filter_gain == pytest.approx(study.scores.filter_auc - study.scores.filter_auc_untrained)
    assert (study.scores.arithmetic, study.scores.arithmetic_shuffled) == latent_arithmetic(
        config, generator, Brightness()
    )
    assert torch.equal(study.interpolation, interpolate(config, generator))
    # A row for each of the filters that know a class best, the best first: the images that activate it most.
    activations = blocks["trained"][-1][test].amax((2, 3))
    order = sorted(range(activations.shape[1]), key=lambda place: -aucs["trained"][place].max())[:NUM_FILTERS]
    rows = study.filters.reshape(NUM_FILTERS, 2, NUM_IMAGES_PER_FILTER, 1, 32, 32)
    for row, place in zip(rows, order, strict=True):
        most = activations[:, place].sort(descending=True).indices[:NUM_IMAGES_PER_FILTER]
        assert torch.equal(row[0], images[test][most])


@pytest.mark.slow
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
    assert len(store.sample_grids(config.run_id)) == 2
    assert NUM_FILTERS == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conditional": True, "num_classes": 10}, "scoring.representation = True: it takes a classifier"),
        ({"scoring": {**SCORING, "features": "none"}}, "scoring.representation = True: it takes a classifier"),
    ],
)
def test_representation_needs_labels_and_an_unconditional_d(changes: dict[str, object], words: str) -> None:
    scoring = {**SCORING, **changes.get("scoring", {}), "representation": True}  # type: ignore[dict-item]
    with pytest.raises(UserError, match=words):
        make_config("mlp", **{**changes, "scoring": scoring})


def test_gains_are_over_the_better_control() -> None:
    probes = [ProbeScores(num_labels=100, trained=0.8, untrained=0.7, pixels=0.75)]
    learnt = RepresentationScores(
        probes=probes, arithmetic=0.5, arithmetic_shuffled=0.1, filter_auc=0.7, filter_auc_untrained=0.6
    )
    assert learnt.probe_gain(100) == pytest.approx(0.05)
    assert learnt.probe_gain(30) is None
    assert learnt.arithmetic_gain == pytest.approx(0.4)
    assert learnt.model_copy(update={"arithmetic": None}).arithmetic_gain is None
