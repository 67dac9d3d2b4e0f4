from __future__ import annotations

import hashlib
import math
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from gan_ablate.scoring import metrics
from gan_ablate.scoring.metrics import (
    KID_SUBSET_SIZE,
    Manifold,
    build_manifold,
    classifier_score,
    frechet_distance,
    frechet_distance_at_infinity,
    frechet_distance_to,
    frechet_sampling_error,
    kernel_distance,
    kernel_distance_of_few,
    nearest_distance,
    neighbour_scores,
)
from gan_ablate.seeding import SCORING_SEED, stream_seed


@pytest.fixture(autouse=True)
def quick_kid() -> None:
    """Compute KID over all subsets, as users do."""


def gaussian(mean: float, std: float, num: int = 4_000, dim: int = 8, seed: int = 0) -> Tensor:
    """Draws whose sample mean and covariance are exactly ``mean`` and ``std``² times the identity."""
    draws = np.random.default_rng(seed).standard_normal((num, dim))
    draws -= draws.mean(0)
    whitening = np.linalg.inv(np.linalg.cholesky(np.cov(draws, rowvar=False)))
    return torch.from_numpy(draws @ whitening.T * std + mean)


def correlated(num: int, seed: int) -> Tensor:
    """Draws with the uneven, correlated spectrum that features have."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).standard_normal((64, 64)) * np.geomspace(2, 0.01, 64)
    return torch.from_numpy(rng.standard_normal((num, 64)) @ mixing + 0.1 * seed)


def test_fid_is_the_closed_form_between_gaussians() -> None:
    # |μ₁ - μ₂|² + Tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½) = 8 · (3² + (2 - 0.5)²)
    assert frechet_distance(gaussian(1, 2), gaussian(4, 0.5, seed=1)) == pytest.approx(8 * (9 + 2.25), rel=1e-9)


def test_fid_is_torch_fidelitys_on_the_same_features() -> None:
    real, fake = correlated(3_000, 0), correlated(2_500, 1)
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(x) for x in (fake, real)), verbose=False)
    assert frechet_distance(real, fake) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


@pytest.mark.slow
def test_kid_is_torch_fidelitys_on_the_same_features() -> None:
    real, fake = correlated(700, 0), correlated(700, 1)
    # One subset that is the whole set: the draws of both programs are then the same.
    theirs = kid_features_to_metric(fake, real, kid_subsets=1, kid_subset_size=700, verbose=False)
    assert kernel_distance(real, fake) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)


def at_infinity(real: Tensor, fake: Tensor) -> float | None:
    return frechet_distance_at_infinity(real.mean(0), real.T.cov(), fake)


def test_fid_at_infinity_is_the_line_that_numpy_fits() -> None:
    """As its paper's authors compute it, with SciPy's square root and NumPy's line, on the same draws."""
    real, fake = correlated(3_000, 0), correlated(2_000, 1)
    mean, covariance = real.numpy().mean(0), np.cov(real.numpy(), rowvar=False)
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "extrapolation"))
    sizes, distances = np.linspace(400, 2_000, 15).astype(int), []
    for size in sizes:
        chosen = fake.numpy()[torch.randperm(2_000, generator=stream).numpy()[:size]]
        own = np.cov(chosen, rowvar=False)
        shift = mean - chosen.mean(0)
        distances.append(shift @ shift + np.trace(covariance + own - 2 * scipy.linalg.sqrtm(covariance @ own).real))
    found = at_infinity(real, fake)
    assert found == pytest.approx(np.polyfit(1 / sizes, distances, 1)[1], rel=1e-5)
    assert found == at_infinity(real, fake)


def test_fid_at_infinity_has_no_bias_where_that_of_few_images_has() -> None:
    """Between Gaussians whose FID is known: of 640 vectors of 16 features, FID is twice as high on average."""
    dim, num = 16, 640
    mean, covariance = torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64)
    true = dim * 0.1**2  # μ = 0 and 0, σ = 1 and 1.1
    draws = [torch.from_numpy(np.random.default_rng(seed).standard_normal((num, dim)) * 1.1) for seed in range(20)]
    fids = [frechet_distance_to(mean, covariance, fake) / true for fake in draws]
    extrapolated = [(frechet_distance_at_infinity(mean, covariance, fake) or 0.0) / true for fake in draws]
    assert np.mean(fids) > 1.5
    assert np.mean(extrapolated) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(("num", "has_line"), [(31, False), (32, True)])
def test_fid_at_infinity_needs_four_images_a_feature(num: int, *, has_line: bool) -> None:
    assert (at_infinity(gaussian(0, 1), gaussian(1, 1, num, seed=1)) is not None) is has_line


def test_kid_is_the_unbiased_estimator() -> None:
    real, fake = gaussian(0, 1, num=300), gaussian(0.5, 1, num=300, seed=1)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    num = len(real)
    within = [(kernel(x, x).sum() - kernel(x, x).diagonal().sum()) / (num * (num - 1)) for x in (real, fake)]
    expected = within[0] + within[1] - 2 * kernel(real, fake).mean()
    assert kernel_distance(real, fake) == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.slow
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


def test_the_sampling_error_is_the_spread_of_fid_over_other_samples() -> None:
    """Against brute force: FID of 60 fresh samples of the same generator."""
    real = correlated(4_000, 0)
    rng = np.random.default_rng(3)

    def sample() -> Tensor:
        mixing = np.random.default_rng(7).standard_normal((64, 64)) * np.geomspace(2, 0.01, 64)
        return torch.from_numpy(rng.standard_normal((2_000, 64)) @ mixing * 1.1 + 0.2)

    spread = np.std([math.log(frechet_distance(real, sample())) for _ in range(60)], ddof=1)
    errors = [frechet_sampling_error(real, sample()) or 0.0 for _ in range(6)]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.3)


def test_the_sampling_error_is_the_jackknifes_over_ten_groups() -> None:
    """By the formula of Shao and Wu, on groups that are as even as 103 vectors allow."""
    real, fake = correlated(120, 0)[:, :3], correlated(103, 1)[:, :3]
    groups = np.array_split(np.arange(len(fake)), 10)
    logs = [math.log(frechet_distance(real, fake[np.setdiff1d(np.arange(len(fake)), group)])) for group in groups]
    expected = math.sqrt(9 / 10 * sum((value - np.mean(logs)) ** 2 for value in logs))
    assert frechet_sampling_error(real, fake) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("num_real", "num_fake"), [(150, 400), (400, 150)])
def test_kid_subsets_have_the_size_of_the_smaller_set(num_real: int, num_fake: int) -> None:
    real, fake = gaussian(0, 1, num=num_real), gaussian(0.5, 1, num=num_fake, seed=1)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    within = [(kernel(x, x).sum() - kernel(x, x).diagonal().sum()) / (len(x) * (len(x) - 1)) for x in (real, fake)]
    expected = within[0] + within[1] - 2 * kernel(real, fake).mean()
    assert kernel_distance(real, fake) == pytest.approx(expected.item(), rel=0.02)


def test_kid_hides_no_warning_but_the_one_that_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    class Talking(KernelInceptionDistance):
        def __init__(self, **options: Any) -> None:
            warnings.warn("something else", UserWarning, stacklevel=1)
            super().__init__(**options)

    monkeypatch.setattr(metrics, "KernelInceptionDistance", Talking)
    with pytest.warns(UserWarning, match="something else") as told:
        kernel_distance(gaussian(0, 1, num=50), gaussian(0.5, 1, num=50, seed=1))
    assert len(told) == 1


def test_kids_subsets_are_those_of_earlier_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two images each, one subset, drawn from the stream that is called so."""
    monkeypatch.setattr(metrics, "KID_SUBSETS", 1)
    monkeypatch.setattr(metrics, "KID_SUBSET_SIZE", 2)
    real, fake = gaussian(0, 1, num=50), gaussian(0.5, 1, num=60, seed=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(hashlib.sha256(b"0/KID subsets").hexdigest()[:16], 16) >> 1)
        (a, b), (c, d) = (x[torch.randperm(len(x))[:2]] for x in (real, fake))

    def kernel(x: Tensor, y: Tensor) -> float:
        return (x @ y / len(x) + 1).item() ** 3

    across = (kernel(a, c) + kernel(a, d) + kernel(b, c) + kernel(b, d)) / 4
    assert kernel_distance(real, fake) == pytest.approx(kernel(a, b) + kernel(c, d) - 2 * across, rel=1e-9)


def test_precision_and_recall_are_torch_fidelitys() -> None:
    real, fake = correlated(900, 0).float(), (correlated(800, 1) * 0.9).float()
    theirs = prc_features_to_metric(fake, real, prc_neighborhood=metrics.NUM_NEIGHBOURS, verbose=False)
    ours = neighbour_scores(build_manifold(real), build_manifold(fake))
    assert 0.1 < ours.precision < 1
    assert ours.precision == pytest.approx(theirs["precision"], abs=2e-3)
    assert ours.recall == pytest.approx(theirs["recall"], abs=2e-3)


def test_density_and_coverage_are_their_definitions() -> None:
    real, fake = (torch.from_numpy(np.random.default_rng(i).standard_normal((600 + i, 3))) for i in (0, 1))
    fake = fake * 0.5 + 0.3
    within, across = torch.cdist(real, real), torch.cdist(fake, real)
    radii = within.sort(1).values[:, metrics.NUM_NEIGHBOURS]
    inside = across <= radii
    ours = neighbour_scores(build_manifold(real), build_manifold(fake))
    assert ours.density == pytest.approx(inside.sum().item() / len(fake) / metrics.NUM_NEIGHBOURS)
    assert ours.coverage == pytest.approx(inside.any(0).double().mean().item())
    assert ours.density > 1  # they crowd in the middle


def test_a_ball_holds_what_lies_on_its_surface() -> None:
    """Real balls reach from -2 to 2 and from 9 to 11; a fake one from 10 to 16, the others nowhere."""
    real = Manifold(torch.tensor([[0.0], [10.0]]), torch.tensor([4.0, 1.0]))
    fake = Manifold(torch.tensor([[2.0], [13.0], [1.0], [-1.0]]), torch.tensor([0.0, 9.0, 0.0, 0.0]))
    scores = neighbour_scores(real, fake)
    assert (scores.precision, scores.recall, scores.coverage) == (3 / 4, 1 / 2, 1 / 2)
    assert scores.density == pytest.approx(3 / 4 / metrics.NUM_NEIGHBOURS)


def test_a_balls_radius_does_not_count_its_own_centre() -> None:
    line = torch.arange(20.0)[:, None]
    radii = build_manifold(line).squared_radii
    assert radii[0].item() == pytest.approx(25)  # 0 reaches 5, its fifth neighbour
    assert radii[10].item() == pytest.approx(9)  # 10 reaches 7 or 13: neighbours 9, 11, 8, 12, 7


def test_images_far_from_any_real_one_have_no_precision_and_no_coverage() -> None:
    real = build_manifold(gaussian(0, 1).float())
    far = build_manifold(gaussian(50, 1, seed=1).float())
    scores = neighbour_scores(real, far)
    assert (scores.precision, scores.recall, scores.density, scores.coverage) == (0, 0, 0, 0)


def test_copies_of_one_real_image_are_precise_and_cover_nothing() -> None:
    vectors = gaussian(0, 1, num=500).float()
    copies = vectors[:1].repeat(100, 1)
    scores = neighbour_scores(build_manifold(vectors), Manifold(copies, torch.zeros(100)))
    assert scores.precision == 1
    assert scores.coverage < 0.2


def test_the_classifier_score_is_torchmetrics_inception_score() -> None:
    logits = torch.randn((500, 10), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3

    class Logits(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.warns(UserWarning, match="will save all extracted features"):
        theirs = InceptionScore(feature=Logits(), splits=1)
    theirs.set_dtype(torch.float64)
    theirs.update(logits)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        expected, _ = theirs.compute()
    assert classifier_score(logits) == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(("logits", "score"), [(torch.eye(10) * 100, 10), (torch.zeros(50, 10), 1)])
def test_the_classifier_score_lies_between_one_and_the_number_of_classes(logits: Tensor, score: float) -> None:
    assert classifier_score(logits) == pytest.approx(score)


@pytest.mark.parametrize(
    ("logits", "score"), [([[1e4, 0.0, 0.0], [0.0, 1e4, 0.0]], 2), ([[1e4, 0.0, 0.0], [1e4, 0.0, 0.0]], 1)]
)
def test_classes_of_no_probability_at_all_count_for_nothing(logits: list[list[float]], score: float) -> None:
    assert classifier_score(torch.tensor(logits)) == pytest.approx(score)


def test_the_nearest_distance_is_the_median_of_scipys() -> None:
    vectors, training = correlated(601, 0), correlated(300, 1)
    distances = scipy.spatial.distance.cdist(vectors.numpy(), training.numpy()).min(1)
    assert nearest_distance(vectors, training) == pytest.approx(np.median(distances), rel=1e-9)


def test_the_nearest_training_image_of_a_copy_is_no_distance_away() -> None:
    training = gaussian(0, 1, num=1_200).float()
    # In float32, |a|² + |b|² - 2 a·b of equal vectors is zero to about 1e-6 of |a|².
    assert nearest_distance(training[:600], training) < 5e-3
    shifted = training[:600] + torch.tensor([100.0, *[0.0] * 7])
    assert nearest_distance(shifted, training) == pytest.approx(97, abs=2)


@pytest.mark.parametrize(("num", "num_features"), [(500, 64), (50, 64), (300, 512)])
def test_fid_of_a_set_with_itself_is_zero_despite_rounding(num: int, num_features: int) -> None:
    vectors = torch.randn(num, num_features, generator=torch.Generator().manual_seed(0))
    shuffled = vectors[torch.randperm(num, generator=torch.Generator().manual_seed(1))]
    assert frechet_distance(vectors, shuffled) == 0


def test_a_small_distance_is_none_of_rounding() -> None:
    vectors = torch.randn(500, 64, generator=torch.Generator().manual_seed(0)).double()
    moved = vectors + 1e-3 * torch.eye(64)[0]
    variance = 2 * float(vectors.numpy().var(0, ddof=1).sum())
    assert variance * 1e-6 > 1e-6
    assert frechet_distance(vectors, vectors + 0.1) == pytest.approx(64 * 0.01, rel=1e-6)
    assert frechet_distance(vectors, moved) == 0  # 1e-6, below a millionth of the variance


def test_a_distance_that_is_no_number_stays_none() -> None:
    vectors = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    try:
        distance = frechet_distance(vectors, vectors * float("nan"))
    except RuntimeError:  # as some versions of LAPACK have it
        return
    assert math.isnan(distance)


def test_a_sampling_error_of_log_zero_is_none() -> None:
    point = torch.ones(50, 4)
    assert frechet_distance(point, point) == 0
    assert frechet_sampling_error(point, point) is None


def test_kid_of_few_is_the_unbiased_estimator_with_the_jackknifes_interval() -> None:
    real, fake = gaussian(0, 1, num=60, dim=4), gaussian(0.5, 1, num=12, dim=4, seed=1)

    def unbiased(of: Tensor) -> float:
        a, b, across = ((x.double() @ y.double().T / 4 + 1).pow(3) for x, y in ((real, real), (of, of), (of, real)))
        among = [float(k.sum() - k.diag().sum()) / (len(k) * (len(k) - 1)) for k in (a, b)]
        return sum(among) - 2 * float(across.mean())

    found = kernel_distance_of_few(real, fake)
    without = torch.tensor([unbiased(torch.cat([fake[:i], fake[i + 1 :]])) for i in range(12)], dtype=torch.float64)
    error = math.sqrt(11 / 12 * float((without - without.mean()).square().sum()))
    assert found.kid == pytest.approx(unbiased(fake), rel=1e-9)
    assert (found.high - found.kid, found.kid - found.low) == pytest.approx((1.96 * error, 1.96 * error), rel=1e-9)


@pytest.mark.slow
def test_the_interval_of_kid_of_few_covers_in_95_of_100_samples() -> None:
    """The truth is the mean over all samples, the real vectors given."""
    stream = torch.Generator().manual_seed(0)
    real = torch.randn(1_000, 8, generator=stream)
    found = [kernel_distance_of_few(real, torch.randn(200, 8, generator=stream) + 0.2) for _ in range(400)]
    truth = sum(one.kid for one in found) / len(found)
    assert 0.92 < sum(one.low <= truth <= one.high for one in found) / len(found) < 0.98


def test_fid_to_statistics_is_fid_to_the_vectors_that_they_are_of() -> None:
    stream = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(300, 8, generator=stream) @ torch.rand(8, 8, generator=stream) for _ in range(2))
    found = frechet_distance_to(real.double().mean(0), real.double().T.cov(), fake)
    assert found == pytest.approx(frechet_distance(real, fake), rel=1e-9)
