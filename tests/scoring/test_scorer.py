from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn import functional

from gan_ablate.execution.executors.worker import start_process
from gan_ablate.scoring import metrics
from gan_ablate.scoring import scorer as score_module
from gan_ablate.scoring.extractors import ClassifierExtractor, Features, UserFeatureExtractor
from gan_ablate.scoring.metrics import (
    NUM_NEIGHBOURS,
    classifier_score,
    frechet_distance,
    frechet_distance_at_infinity,
    frechet_sampling_error,
    kernel_distance,
    nearest_distance,
)
from gan_ablate.scoring.scorer import (
    NonFiniteImagesError,
    Scorer,
    list_user_caches,
    load_real_features,
    quantise,
    sample_grid_latents,
    sample_images,
    scoring_latents,
)
from gan_ablate.scoring.scores import Scores
from gan_ablate.training.data import ImageDataset, load_dataset, resize, take_batch
from gan_ablate.training.models import build_generator
from tests.configs import make_config

CPU = torch.device("cpu")


class Constant(nn.Module):
    """A generator that draws the same value everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, z: Tensor) -> Tensor:
        return torch.full((len(z), 1, 28, 28), self.value)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    dataset = load_dataset("mnist-10k", 28, Path())
    return Scorer(dataset, ClassifierExtractor("digits", CPU), tmp_path_factory.mktemp("cache"))


def draw(generator: nn.Module, num: int, *, batch_stats: bool = False) -> Tensor:
    return sample_images(generator, scoring_latents(make_config(), num)[0], CPU, batch_stats=batch_stats)


@pytest.mark.parametrize(
    ("value", "pixel"), [(-1.0, 0), (1.0, 255), (1.2, 255), (-7.0, 0), (0.0, 128), (-1 + 1.6 / 127.5, 2)]
)
def test_pixels_are_rounded_and_clamped_as_a_saved_image_would_be(value: float, pixel: int) -> None:
    assert quantise(torch.tensor([value])).tolist() == [pixel]


def test_every_pixel_that_networks_see_is_saved_as_it_was() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantise(take_batch(pixels.reshape(256, 1, 1, 1), torch.arange(256))).flatten(), pixels)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_pixel_that_is_no_number_is_no_pixel(value: float) -> None:
    with pytest.raises(NonFiniteImagesError):
        sample_images(Constant(value), torch.zeros(3, 2), CPU)


@pytest.mark.slow
def test_real_digits_score_near_zero(scorer: Scorer) -> None:
    floor = scorer.floor(10_000)
    assert floor.fid < 0.2
    assert abs(floor.kid) < 0.01
    assert floor.classes_covered == 10
    assert sum(floor.class_counts or ()) == 10_000
    assert floor.class_divergence is not None
    assert floor.class_divergence < 0.01
    assert floor.classifier_score is not None
    assert floor.classifier_score > 7
    for share in (floor.precision, floor.recall, floor.coverage, floor.density):
        assert 0.9 < share < 1.05


def test_blank_pictures_score_far_away(scorer: Scorer) -> None:
    blank = scorer.score(draw(Constant(-1.0), 1_280))
    assert blank.fid > 20
    assert blank.classes_covered == 1
    assert blank.class_divergence == pytest.approx(np.log(10))
    assert blank.classifier_score == pytest.approx(1)
    assert blank.recall == blank.coverage == 0
    assert blank.num_samples == 1_280


@pytest.mark.slow
def test_copies_of_training_images_are_recognised_and_new_digits_are_not(scorer: Scorer) -> None:
    dataset = load_dataset("mnist-10k", 28, Path())
    copies, new = scorer.score(dataset.images[:2_000]), scorer.score(dataset.reference[-2_000:])
    assert copies.nearest_ratio is not None
    assert copies.nearest_ratio < 0.01
    assert new.nearest_ratio == pytest.approx(1, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 56])
def test_another_resolution_has_another_floor_and_new_digits_are_not_copies(size: int, tmp_path: Path) -> None:
    """Real digits sent through the same resizing are the floor, and no nearer to the training set than they should."""
    dataset = load_dataset("mnist-10k", size, Path())
    at_size = Scorer(dataset, ClassifierExtractor("digits", CPU), tmp_path)
    floor = at_size.floor(10_000)
    assert 0.06 < floor.fid < 20  # 0.05 at 28 pixels
    new = at_size.score(resize(dataset.reference[-2_000:], size))
    assert new.nearest_ratio == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_the_floor_is_kept_until_what_it_depends_on_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    compute = Scorer._score_real

    def count(self: Scorer, num_samples: int, *, has_time: bool) -> Scores:
        computed.append(num_samples)
        return compute(self, num_samples, has_time=has_time)

    monkeypatch.setattr(Scorer, "_score_real", count)

    def floor(
        num: int = 40, caches: Sequence[Path] = (tmp_path,), *, has_time: bool = False, data: str = "d"
    ) -> Scores:
        return Scorer(dataset(data * 64), MeanExtractor(), *caches).floor(num, has_time=has_time)

    first = floor()
    assert floor() == first
    assert computed == [40]
    (file,) = tmp_path.glob("*.scores")
    file.write_bytes(file.read_bytes()[:-1])  # damaged: made anew
    assert floor().fid == first.fid
    assert computed == [40] * 2
    assert floor(30).num_samples == 30
    floor(has_time=True)
    floor(data="e")
    floor(caches=())
    monkeypatch.setattr(metrics, "KID_SUBSETS", 3)
    floor()
    assert computed == [40, 40, 30, 40, 40, 40, 40]


def test_floor_has_the_number_of_images_available(scorer: Scorer) -> None:
    assert scorer.floor(20_000).num_samples == 10_000
    assert scorer.floor(1_500).num_samples == 1_500


def scores_with(class_counts: tuple[int, ...] | None) -> Scores:
    others = ("fid", "fid_sampling_error", "kid", "precision", "recall", "density", "coverage", "classifier_score")
    values = dict.fromkeys((*others, "nearest_ratio", "seconds"), 1.0)
    return Scores(num_samples=1_000, class_counts=class_counts, **values)


class Corners:
    """Four features of an image that cost nothing: the brightness of its quarters; classes if it is asked for them."""

    name, sha256, num_features = "corners", "c" * 64, 4

    def __init__(self, *, is_fast: bool, has_classes: bool) -> None:
        self.is_fast, self.has_classes = is_fast, has_classes
        self.num_seen = 0

    def __call__(self, images: Tensor) -> Features:
        self.num_seen += len(images)
        vectors = functional.adaptive_avg_pool2d(images.float(), 2).flatten(1) / 255
        return Features(vectors, 9 * vectors if self.has_classes else None)


def small_dataset() -> ImageDataset:
    stream = torch.Generator().manual_seed(0)
    images, held_out = (torch.randint(0, 256, (num, 1, 4, 4), generator=stream).byte() for num in (80, 70))
    return ImageDataset("test", images, None, held_out, "d" * 64, "invented")


@pytest.mark.parametrize("has_classes", [True, False])
@pytest.mark.parametrize("is_fast", [True, False])
def test_scores_are_those_of_the_features_and_only_what_the_extractor_can_tell(
    tmp_path: Path, *, is_fast: bool, has_classes: bool
) -> None:
    extractor, dataset = Corners(is_fast=is_fast, has_classes=has_classes), small_dataset()
    small, images = Scorer(dataset, extractor, tmp_path), dataset.images[:60] // 2
    real, fake = extractor(dataset.reference).vectors, extractor(images).vectors
    scores = small.score(images, torch.zeros(60, dtype=torch.int64))
    assert small.num_reference == 70
    assert scores.num_samples == 60
    assert scores.fid == small.fid(images) == frechet_distance(real, fake)
    assert scores.kid == kernel_distance(real, fake)
    assert 0 < scores.seconds < 60
    if is_fast:
        assert scores.fid_sampling_error == frechet_sampling_error(real, fake)
        training = extractor(dataset.images).vectors
        ratio = nearest_distance(fake, training) / nearest_distance(real, training)
        assert scores.nearest_ratio == pytest.approx(ratio, rel=1e-3)
    else:
        assert scores.fid_sampling_error is None
        assert scores.nearest_ratio is None
    at_infinity = frechet_distance_at_infinity(real.double().mean(0), real.double().T.cov(), fake)
    assert scores.fid_infinity == (at_infinity if is_fast else None)
    assert small.score(images, has_time=True).fid_infinity == at_infinity
    assert small.floor(60, has_time=True).fid_infinity is not None
    brightest = fake.argmax(1).tolist()
    if has_classes:
        assert scores.class_counts == tuple(brightest.count(corner) for corner in range(4))
        assert scores.label_accuracy == pytest.approx(brightest.count(0) / 60)
        assert scores.classifier_score == classifier_score(9 * fake)
    else:
        assert (scores.class_counts, scores.label_accuracy, scores.classifier_score) == (None, None, None)


@pytest.mark.parametrize("has_classes", [True, False])
def test_the_floor_is_of_the_same_images_whether_or_not_they_were_looked_at_before(
    tmp_path: Path, *, has_classes: bool
) -> None:
    """A random part of the training images, the same one as for earlier records: from the stream that is called so."""
    stream = torch.Generator().manual_seed(int(hashlib.sha256(b"0/floor").hexdigest()[:16], 16) >> 1)
    chosen = torch.randperm(80, generator=stream)[:50]
    for is_fast in (True, False):
        extractor = Corners(is_fast=is_fast, has_classes=has_classes)
        small = Scorer(small_dataset(), extractor, tmp_path / str(is_fast))
        num_seen = extractor.num_seen
        floor = small.floor(50)
        assert extractor.num_seen - num_seen == (0 if is_fast else 50)
        expected = small.score(small_dataset().images[chosen])
        assert 0 < floor.seconds < 60
        assert floor.nearest_ratio is None
        assert floor == expected.model_copy(update={"seconds": floor.seconds, "nearest_ratio": None})


def test_only_so_many_images_are_compared_with_their_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_module, "NEIGHBOUR_SAMPLES", 20)
    monkeypatch.setattr(score_module, "NEAREST_SAMPLES", 10)
    small = Scorer(small_dataset(), Corners(is_fast=True, has_classes=True), tmp_path)
    near, far = small_dataset().reference[:20], torch.zeros(30, 1, 4, 4, dtype=torch.uint8)
    whole, half = small.score(torch.cat((near, far))), small.score(near)
    for name in ("precision", "recall", "density", "coverage", "nearest_ratio"):
        assert getattr(whole, name) == getattr(half, name)
    assert whole.fid > half.fid


def test_a_class_is_covered_from_one_image_in_a_hundred_on() -> None:
    assert scores_with((980, 10, 9, 1, 0)).classes_covered == 2
    assert scores_with(None).classes_covered is None


def test_the_evenness_of_classes_is_a_divergence_from_even_shares() -> None:
    assert scores_with((250, 250, 250, 250)).class_divergence == pytest.approx(0)
    # Σ p log(4 p) of (½, ½, 0, 0) = log 2
    assert scores_with((500, 500, 0, 0)).class_divergence == pytest.approx(np.log(2))


def test_shares_of_classes_are_of_all_images() -> None:
    # 1,000 images, of which ½ are of the first class and 0.3 of the second: ½ log(4·½) + 0.3 log(4·0.3).
    expected = 0.5 * np.log(2) + 0.3 * np.log(1.2)
    assert scores_with((500, 300, 0, 0)).class_divergence == pytest.approx(expected)
    assert scores_with(None).class_divergence is None


@pytest.mark.parametrize(
    ("class_counts", "effective"), [((250,) * 4, 4), ((500, 500, 0, 0), 2), ((1_000, 0, 0, 0), 1), ((100,) * 10, 10)]
)
def test_effective_classes_are_as_many_as_are_drawn_evenly(class_counts: tuple[int, ...], effective: float) -> None:
    assert scores_with(class_counts).effective_classes == pytest.approx(effective)


def test_effective_classes_are_the_exponential_of_scipys_entropy() -> None:
    expected = np.exp(scipy.stats.entropy([0.7, 0.2, 0.1]))
    assert scores_with((700, 200, 100, 0)).effective_classes == pytest.approx(expected)


def test_without_classes_there_are_no_effective_ones() -> None:
    assert scores_with(None).effective_classes is None


@pytest.mark.parametrize(
    ("class_counts", "recall", "is_collapsed"),
    [
        ((250, 250, 250, 250), 1.0, False),
        ((500, 500, 0, 0), 1.0, False),  # as diverse as two of four
        ((501, 499, 0, 0), 1.0, True),
        ((500, 250, 250, 0), 1.0, False),
        ((1_000, 0, 0, 0), 1.0, True),
        ((250, 250, 250, 250), 0.049, True),  # one image of each class
        ((250, 250, 250, 250), 0.05, False),
        (None, 0.05, False),
        (None, 0.0, True),
    ],
)
def test_a_generator_of_few_kinds_has_collapsed(
    class_counts: tuple[int, ...] | None, recall: float, *, is_collapsed: bool
) -> None:
    assert scores_with(class_counts).model_copy(update={"recall": recall}).is_collapsed is is_collapsed


def test_a_row_holds_every_score_that_is_a_number() -> None:
    row = scores_with((980, 20, 0, 0)).as_row()
    assert row.keys() == {
        *("num_samples", "fid", "fid_sampling_error", "kid", "precision", "recall", "density", "coverage"),
        *("classifier_score", "label_accuracy", "nearest_ratio", "classes_covered", "class_divergence"),
        "fid_infinity",
    }
    assert (row["num_samples"], row["label_accuracy"], row["classes_covered"]) == (1_000, None, 2)
    assert row["class_divergence"] == scores_with((980, 20, 0, 0)).class_divergence


def test_scoring_leaves_the_generator_as_it_was(scorer: Scorer) -> None:
    generator = build_generator(make_config())
    generator.train()
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    with_averages = scorer.fid(draw(generator, 1_280))
    with_batches = scorer.fid(draw(generator, 1_280, batch_stats=True))
    assert generator.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    # Freshly initialised, the running averages are not those of any batch.
    assert with_averages != pytest.approx(with_batches, rel=1e-3)


class Normalised(nn.Module):
    """Draws one pixel an image: its latent, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.fill_(0.5)
        self.norm.running_var.fill_(4)

    def forward(self, z: Tensor) -> Tensor:
        drawn: Tensor = self.norm(z[:, :, None, None])
        return drawn


@pytest.mark.parametrize("was_training", [True, False])
def test_images_are_sampled_with_the_requested_batch_statistics(*, was_training: bool) -> None:
    generator, latents = Normalised().train(was_training), torch.tensor([[0.0], [0.5], [1.0], [0.9]])
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    running = sample_images(generator, latents, CPU).flatten().tolist()
    assert running == [round((z + 1) * 127.5) for z in (-0.25, 0, 0.25, 0.2)]  # (z - 0.5) / √4
    of_batch = sample_images(generator, latents, CPU, batch_stats=True).flatten().tolist()
    z = np.array([0, 0.5, 1, 0.9])
    assert of_batch == np.clip(((z - z.mean()) / z.std() + 1) * 127.5, 0, 255).round().tolist()
    with pytest.raises(NonFiniteImagesError):
        sample_images(generator, latents * float("nan"), CPU, batch_stats=True)
    assert generator.training is generator.norm.training is was_training
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())


def test_batch_statistics_come_from_equal_parts() -> None:
    class Sizes(Constant):
        def forward(self, z: Tensor) -> Tensor:
            sizes.append(len(z))
            return super().forward(z)

    sizes: list[int] = []
    assert len(sample_images(Sizes(0.0), torch.zeros(1_501, 2), CPU, batch_stats=True)) == 1_501
    assert sorted(sizes) == [214] * 4 + [215] * 3


@pytest.mark.slow
def test_scoring_neither_reads_nor_advances_the_global_stream(scorer: Scorer) -> None:
    generator = build_generator(make_config())
    torch.manual_seed(1)
    first = scorer.score(draw(generator, 1_280))
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    torch.rand(100)
    again = scorer.score(draw(generator, 1_280))
    assert again.model_copy(update={"seconds": 0}) == first.model_copy(update={"seconds": 0})


@pytest.mark.slow
def test_real_digits_have_high_label_accuracy(scorer: Scorer) -> None:
    data = load_dataset("mnist-10k", 28, Path())
    assert data.labels is not None
    images, labels = data.images[:1_280], data.labels[:1_280]
    assert scorer.score(images, labels).label_accuracy == pytest.approx(1, abs=0.01)
    assert scorer.score(images, (labels + 1) % 10).label_accuracy == pytest.approx(0, abs=0.01)
    assert scorer.score(images).label_accuracy is None


def test_a_conditional_run_is_asked_for_classes_as_frequent_as_the_images() -> None:
    config = make_config(conditional=True, num_classes=10)
    labels = torch.tensor([0] * 30 + [7] * 10)
    latents, classes = scoring_latents(config, 4_000, labels)
    assert classes is not None
    assert latents.shape == (4_000, 110)
    assert torch.equal(latents[:, 100:].argmax(1), classes)
    assert (classes == 7).float().mean().item() == pytest.approx(0.25, abs=0.03)
    # Beside a run that is not conditional, the latents are the same.
    assert torch.equal(latents[:, :100], scoring_latents(make_config(), 4_000)[0])
    assert sample_grid_latents(config)[:, 100:].argmax(1).tolist() == [place % 10 for place in range(64)]
    assert torch.equal(sample_grid_latents(config)[:, :100], sample_grid_latents(make_config()))
    again = scoring_latents(config, 4_000, labels)
    assert torch.equal(again[0], latents)


def test_latents_are_those_of_earlier_records() -> None:
    """A run is compared with those that were scored before it: the latents are of the stream that is called so."""
    stream = torch.Generator().manual_seed(int(hashlib.sha256(b"0/latent").hexdigest()[:16], 16) >> 1)
    latents, classes = scoring_latents(make_config(), 64)
    assert classes is None
    assert torch.equal(latents, torch.randn(64, 100, generator=stream))
    assert torch.equal(sample_grid_latents(make_config()), latents)


def test_scoring_draws_from_the_runs_own_distribution() -> None:
    latents, _ = scoring_latents(make_config(latent_distribution="uniform"), 1_000)
    assert latents.abs().max() <= 1
    assert latents.std().item() == pytest.approx(1 / np.sqrt(3), rel=0.01)


class MeanExtractor:
    """Four features of an image that cost nothing, and a count of the images it has seen."""

    name = "means"
    sha256 = "a" * 64
    num_features = 4

    def __init__(self, *, is_fast: bool = True) -> None:
        self.is_fast = is_fast
        self.num_seen = 0

    def __call__(self, images: Tensor) -> Features:
        self.num_seen += len(images)
        return Features(images.float().flatten(1).unflatten(1, (4, -1)).mean(2), torch.ones(len(images), 10))


def dataset(sha256: str = "d" * 64, size: int = 8) -> ImageDataset:
    stream = torch.Generator().manual_seed(0)
    images, held_out = (torch.randint(0, 256, (num, 1, size, size), generator=stream).byte() for num in (60, 50))
    return ImageDataset("test", images, None, held_out, sha256, "invented")


def test_features_of_real_images_are_extracted_once(tmp_path: Path) -> None:
    extractor = MeanExtractor()
    first = load_real_features(dataset(), extractor, tmp_path / "cache")
    assert extractor.num_seen == 110
    second = load_real_features(dataset(), extractor, tmp_path / "cache")
    assert extractor.num_seen == 110
    assert torch.equal(first.reference, second.reference)
    assert torch.equal(first.manifold.squared_radii, second.manifold.squared_radii)
    assert first.training is not None
    assert second.training is not None
    assert torch.equal(first.training.vectors, second.training.vectors)
    assert first.nearest_held_out == second.nearest_held_out
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".safetensors"]


def test_features_of_one_folder_are_found_from_another_through_the_users_cache(tmp_path: Path) -> None:
    extractor, (user, first, second) = MeanExtractor(), (tmp_path / name for name in ("user", "first", "second"))
    real = load_real_features(dataset(), extractor, first, user)
    again = load_real_features(dataset(), extractor, second, user)
    assert extractor.num_seen == 110
    assert torch.equal(real.reference, again.reference)
    (file,) = user.iterdir()
    for folder in (first, second):
        assert (folder / file.name).read_bytes() == file.read_bytes()
    # What a folder has counts there, whatever the user's cache has; a damaged file is no feature.
    file.write_bytes(b"damaged")
    load_real_features(dataset(), extractor, second, user)
    assert extractor.num_seen == 110
    load_real_features(dataset(), extractor, tmp_path / "third", user)
    assert extractor.num_seen == 220
    assert file.read_bytes() == (first / file.name).read_bytes()


def test_the_users_cache_is_for_a_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another GPU, or a processor with other instructions, rounds features differently."""
    found = set()
    for name in ("AVX2", "AVX512"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=name: name)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: f"GPU/{name}")
        for device in ("cpu", "cuda"):
            (cache,) = list_user_caches(torch.device(device))
            found.add(cache.name)
    assert found == {"cpu-avx2", "cpu-avx512", "cuda-gpu-avx2", "cuda-gpu-avx512"}


def test_the_users_cache_forgets_what_was_used_longest_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, (cache,) = MeanExtractor(), list_user_caches(CPU)
    names = [f"{place}{'0' * 23}.safetensors" for place in range(4)]
    theirs = [cache / names[0], cache.parent / names[1], cache / f".{names[2]}.killed", cache / names[3]]
    kept = [cache / "other", cache.parent / "clone" / "assets" / names[0], cache.parent / "generator.safetensors"]
    for age, file in enumerate([*theirs, *kept]):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 50_000)
        os.utime(file, (age, age))
    (cache / f"{'a' * 24}.safetensors").symlink_to("nowhere")
    load_real_features(dataset(), extractor, tmp_path, cache)
    (ours,) = (file for file in cache.glob("*.safetensors") if file.exists() and file not in theirs)
    os.utime(ours, (2.5, 2.5))
    monkeypatch.setattr(score_module, "USER_CACHE_BYTES", 50_000 + ours.stat().st_size)
    load_real_features(dataset("e" * 64), extractor, tmp_path, cache)
    assert [file.exists() for file in theirs] == [False, False, False, True]
    assert ours.exists()
    # What a results folder has was used, too.
    load_real_features(dataset(), extractor, tmp_path, cache)
    assert ours.stat().st_mtime > 4
    monkeypatch.setattr(score_module, "USER_CACHE_BYTES", 0)
    load_real_features(dataset("f" * 64), extractor, tmp_path, cache)
    assert len([file for file in cache.glob("*.safetensors") if file.exists()]) == 1
    assert all(file.exists() for file in kept)


def test_a_users_extractor_is_kept_in_its_results_folder_only() -> None:
    """Weights that its code loads may change behind its name."""
    assert list_user_caches(CPU, UserFeatureExtractor.__new__(UserFeatureExtractor)) == []
    assert len(list_user_caches(CPU, ClassifierExtractor("digits", CPU))) == 1


KEYED = ("data", "resolution", "held out", "name", "weights", "torch", "_LAYOUT", "EXTRACTION_BATCH", "NUM_NEIGHBOURS")


@pytest.mark.parametrize("other", [*KEYED, "NEIGHBOUR_SAMPLES", "NEAREST_SAMPLES"])
def test_what_changes_the_features_changes_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    extractor, images = MeanExtractor(), dataset()
    load_real_features(images, extractor, tmp_path)
    match other:
        case "data":
            images = dataset("e" * 64)
        case "resolution":
            images = dataset(size=16)
        case "held out":
            images = dataclasses.replace(images, reference=images.reference[:-1])
        case "name":
            extractor.name = "other means"
        case "weights":
            extractor.sha256 = "b" * 64
        case "torch":
            monkeypatch.setattr(torch, "__version__", "99.0")
        case _:
            monkeypatch.setattr(score_module, other, 9)
    load_real_features(images, extractor, tmp_path)
    assert extractor.num_seen > 110
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"half a fi"])
def test_a_file_that_cannot_be_read_is_made_anew(tmp_path: Path, content: bytes) -> None:
    extractor = MeanExtractor()
    first = load_real_features(dataset(), extractor, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    assert torch.equal(load_real_features(dataset(), extractor, tmp_path).reference, first.reference)
    assert len(file.read_bytes()) > 1_000


def test_a_slow_extractor_is_spared_the_training_set(tmp_path: Path) -> None:
    extractor = MeanExtractor(is_fast=False)
    real = load_real_features(dataset(), extractor, tmp_path)
    assert extractor.num_seen == 50
    assert real.training is None
    assert real.nearest_held_out is None


def test_cached_features_equal_the_extractors(tmp_path: Path) -> None:
    extractor, data = MeanExtractor(), dataset()
    expected = extractor(data.images)
    for _ in range(2):  # made, then read
        real = load_real_features(data, extractor, tmp_path)
        assert real.training is not None
        assert real.training.logits is not None
        assert expected.logits is not None
        assert torch.equal(real.training.vectors, expected.vectors)
        assert torch.equal(real.training.logits, expected.logits)


def test_an_extractor_without_classes_leaves_none(tmp_path: Path) -> None:
    class Classless(MeanExtractor):
        def __call__(self, images: Tensor) -> Features:
            return Features(super().__call__(images).vectors, None)

    for _ in range(2):
        real = load_real_features(dataset(), Classless(), tmp_path)
        assert real.training is not None
        assert real.training.logits is None


@pytest.mark.parametrize("size", [8, 16])
def test_held_out_images_are_as_far_from_training_ones_as_by_brute_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A random part of them, at the resolution of training: whatever size they came in."""
    monkeypatch.setattr(score_module, "NEAREST_SAMPLES", 21)
    stream = torch.Generator().manual_seed(int(hashlib.sha256(b"0/manifold").hexdigest()[:16], 16) >> 1)
    chosen = torch.randperm(50, generator=stream)[:21]
    extractor, data = MeanExtractor(), dataclasses.replace(dataset(), reference=dataset(size=size).reference)
    held_out = extractor(resize(data.reference[chosen], 8)).vectors
    distances = torch.cdist(held_out.double(), extractor(data.images).vectors.double()).min(1).values
    real = load_real_features(data, extractor, tmp_path)
    assert real.nearest_held_out == pytest.approx(distances.median().item(), rel=1e-3)


@pytest.mark.parametrize("place", [0, 600, -40, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, place: int) -> None:
    extractor = MeanExtractor()
    first = load_real_features(dataset(), extractor, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place:][1:])
    assert torch.equal(load_real_features(dataset(), extractor, tmp_path).reference, first.reference)
    assert file.read_bytes() == whole


def test_a_full_disk_leaves_nothing_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", refuse)
    real = load_real_features(dataset(), MeanExtractor(), tmp_path)
    assert real.reference.isfinite().all()
    assert list(tmp_path.iterdir()) == []


def load_in_a_loop(cache: str) -> None:
    """What a worker does, again and again, while others delete the file under it."""
    torch.set_num_threads(1)
    extractor = MeanExtractor()
    expected = extractor(dataset().reference).vectors
    for _ in range(40):
        real = load_real_features(dataset(), extractor, Path(cache))
        assert torch.equal(real.reference, expected)
        for file in Path(cache).glob("*.safetensors"):
            file.unlink(missing_ok=True)


@pytest.mark.slow
def test_workers_that_come_at_once_never_read_half_a_file(tmp_path: Path) -> None:
    workers = [start_process(load_in_a_loop, str(tmp_path)) for _ in range(3)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def test_the_manifold_is_a_random_part_of_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_module, "NEIGHBOUR_SAMPLES", 20)
    real = load_real_features(dataset(), MeanExtractor(), tmp_path)
    rows = [int((real.reference == vector).all(1).nonzero()[0, 0]) for vector in real.manifold.vectors]
    assert len(set(rows)) == 20
    assert rows != sorted(rows)
    # The same one as for earlier records: from the stream that is called so.
    stream = torch.Generator().manual_seed(int(hashlib.sha256(b"0/manifold").hexdigest()[:16], 16) >> 1)
    assert rows == torch.randperm(50, generator=stream)[:20].tolist()
    squared = torch.cdist(real.manifold.vectors.double(), real.manifold.vectors.double()).square()
    radii = squared.sort(1).values[:, NUM_NEIGHBOURS]
    torch.testing.assert_close(real.manifold.squared_radii.double(), radii, rtol=1e-2, atol=0)
