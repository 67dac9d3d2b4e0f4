from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan_ablate.data import load_dataset
from gan_ablate.features import ClassifierExtractor
from gan_ablate.models import build_generator
from gan_ablate.score import (
    KID_SUBSET_SIZE,
    NonFiniteImagesError,
    Scorer,
    Scores,
    frechet_distance,
    kernel_distance,
    quantise,
    sample_images,
)
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
def scorer() -> Scorer:
    return Scorer(load_dataset("mnist-10k", 28, Path()), ClassifierExtractor("digits", CPU), CPU)


def gaussian(mean: float, std: float, num: int = 4_000, dim: int = 8, seed: int = 0) -> Tensor:
    """Draws whose sample mean and covariance are exactly ``mean`` and ``std``² times the identity."""
    draws = np.random.default_rng(seed).standard_normal((num, dim))
    draws -= draws.mean(0)
    whitening = np.linalg.inv(np.linalg.cholesky(np.cov(draws, rowvar=False)))
    return torch.from_numpy(draws @ whitening.T * std + mean)


def test_fid_is_the_closed_form_between_gaussians() -> None:
    # |μ₁ - μ₂|² + Tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½) = 8 · (3² + (2 - 0.5)²)
    assert frechet_distance(gaussian(1, 2), gaussian(4, 0.5, seed=1)) == pytest.approx(8 * (9 + 2.25), rel=1e-9)


def test_kid_is_the_unbiased_estimator() -> None:
    real, fake = gaussian(0, 1, num=300), gaussian(0.5, 1, num=300, seed=1)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    num = len(real)
    within = [(kernel(x, x).sum() - kernel(x, x).diagonal().sum()) / (num * (num - 1)) for x in (real, fake)]
    expected = within[0] + within[1] - 2 * kernel(real, fake).mean()
    # 300 vectors are one whole subset: every one of the subsets is the set itself.
    assert kernel_distance(real, fake) == pytest.approx(expected.item(), rel=1e-9)


def test_kid_meets_the_same_subsets_and_leaves_trainings_stream_alone() -> None:
    real, fake = gaussian(0, 1, num=2 * KID_SUBSET_SIZE), gaussian(0.5, 1, num=2 * KID_SUBSET_SIZE, seed=1)
    torch.manual_seed(5)
    first = kernel_distance(real, fake)
    after = torch.rand(3)
    torch.manual_seed(5)
    untouched = torch.rand(3)
    torch.manual_seed(99)
    assert kernel_distance(real, fake) == first
    assert torch.equal(after, untouched)


@pytest.mark.parametrize(
    ("value", "pixel"), [(-1.0, 0), (1.0, 255), (1.2, 255), (-7.0, 0), (0.0, 128), (-1 + 1.6 / 127.5, 2)]
)
def test_pixels_are_rounded_and_clamped_as_a_saved_image_would_be(value: float, pixel: int) -> None:
    assert quantise(torch.tensor([value])).tolist() == [pixel]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_pixel_that_is_no_number_is_no_pixel(value: float) -> None:
    with pytest.raises(NonFiniteImagesError):
        sample_images(Constant(value), torch.zeros(3, 2), CPU)


def test_real_digits_score_near_zero_and_noise_far_away(scorer: Scorer) -> None:
    floor = scorer.floor(10_000)
    assert floor.fid < 0.2
    assert abs(floor.kid) < 0.01
    assert floor.classes_covered == 10
    assert sum(floor.class_counts or ()) == 10_000
    blank = scorer.score(Constant(-1.0), 4, 1_280)
    assert blank.fid > 20
    assert blank.classes_covered == 1


def test_the_floor_says_how_many_images_there_were(scorer: Scorer) -> None:
    assert scorer.floor(20_000).num_samples == 10_000
    assert scorer.floor(1_500).num_samples == 1_500


def test_a_class_is_covered_from_one_image_in_a_hundred_on() -> None:
    scores = Scores(fid=1.0, kid=1.0, class_counts=(980, 10, 9, 1, 0), num_samples=1_000)
    assert scores.classes_covered == 2


def test_scoring_leaves_the_generator_as_it_was(scorer: Scorer) -> None:
    generator = build_generator(make_config())
    generator.train()
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    with_averages = scorer.fid(generator, 100, 1_280)
    with_batches = scorer.fid(generator, 100, 1_280, batch_stats=True)
    assert generator.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in generator.state_dict().items())
    # Freshly initialised, the running averages are not those of any batch.
    assert with_averages != pytest.approx(with_batches, rel=1e-3)


def test_batch_statistics_come_from_equal_parts() -> None:
    class Sizes(Constant):
        def forward(self, z: Tensor) -> Tensor:
            sizes.append(len(z))
            return super().forward(z)

    sizes: list[int] = []
    assert len(sample_images(Sizes(0.0), torch.zeros(1_501, 2), CPU, batch_stats=True)) == 1_501
    assert sorted(sizes) == [375, 375, 375, 376]


def test_scores_do_not_depend_on_what_was_drawn_before(scorer: Scorer) -> None:
    generator = build_generator(make_config())
    torch.manual_seed(1)
    first = scorer.score(generator, 100, 1_280)
    torch.rand(100)
    assert scorer.score(generator, 100, 1_280) == first
