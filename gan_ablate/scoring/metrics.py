"""Metrics: FID, KID and other scores, from the features of real and of generated images.

Distances are computed by torchmetrics in float64; the other scores are written out beside their formulas.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from gan_ablate.design.datasets import IMAGES_PER_FEATURE
from gan_ablate.seeding import SCORING_SEED, stream_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1_000
"""The KID paper's protocol (arXiv:1801.01401, section 4)."""

NUM_NEIGHBOURS = 5
"""Neighbours that span a sample's ball, as in the paper on density and coverage (arXiv:2002.09797, section 3.3)."""

JACKKNIFE_GROUPS = 10

EXTRAPOLATION_POINTS = 15
"""Numbers of images whose FIDs the line to infinitely many goes through, as in its paper (arXiv:1911.07023)."""

EXTRAPOLATION_SHARE = 0.2
"""The smallest of these numbers, as a share of all images, but no less than ``IMAGES_PER_FEATURE`` for each feature.
The paper's is a tenth, 2.4 images for each. Nearer to one image a feature FID bends away from the line. The FID of
1,280 vectors of 64 correlated normal features is 11 % too high; the line is 1 % too low from a tenth on, 0.2 % from a
fifth."""

_ROUNDING = 1e-6
"""A FID below this share of both sets' variance is 0. The square root of a covariance with fewer images than features
turns rounding at 1e-16 into 1e-8 a feature; the FID of two samples of one distribution is above 1e-3 of it."""

_ROWS_AT_ONCE = 500
"""Rows of a distance matrix that are in memory together."""


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """FID of two sets of feature vectors, (N, D) and (M, D) (arXiv:1706.08500, equation 6); 0 within rounding is 0."""
    return _frechet_distances(real, [fake])[0]


def _frechet_distances(real: Tensor, fakes: Sequence[Tensor]) -> list[float]:
    """FID of real feature vectors and each of several sets; the real ones, which are many, are summed once."""
    metric = FrechetInceptionDistance(feature=_Identity(real.shape[1]), reset_real_features=False)
    metric.set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    variance = float(real.double().var(0).sum())
    distances = []
    for fake in fakes:
        metric.reset()
        metric.update(fake.double(), real=False)
        distance = float(metric.compute())
        is_rounding = abs(distance) <= _ROUNDING * (variance + float(fake.double().var(0).sum()))
        distances.append(0.0 if is_rounding else distance)
    return distances


def frechet_distance_to(mean: Tensor, covariance: Tensor, fake: Tensor) -> float:
    """FID of feature vectors, (N, D), and a Gaussian of mean (D,) and covariance (D, D) in float64."""
    fake = fake.double()
    # The eigenvalues of a product of covariances are real and not negative, but for rounding.
    roots = torch.linalg.eigvals(covariance @ fake.T.cov()).sqrt().real.sum()
    traces = covariance.trace() + fake.var(0).sum()
    return float((mean - fake.mean(0)).square().sum() + traces - 2 * roots)


def frechet_distance_at_infinity(mean: Tensor, covariance: Tensor, fake: Tensor) -> float | None:
    """FID of infinitely many vectors like (M, D) ``fake`` and a Gaussian of mean (D,) and covariance (D, D) in float64.

    FID of n vectors is about a + b/n: its expectation is too high by a bias that falls as 1/n, and differs between
    generators (arXiv:1911.07023). As in its authors' code, n has ``EXTRAPOLATION_POINTS`` evenly spread values up to M,
    each with vectors of its own drawn from the M, and a is that of the straight line by least squares. The draws are
    the same every time. The bias of the real images' own number stays.

    Args:
        mean: of the real images' features.
        covariance: of the same.
        fake: generated images' features; their order means nothing.

    Returns:
        a, which may be below zero within its error; None with fewer than twice the smallest number of vectors.
    """
    num, num_features = fake.shape
    least = max(round(EXTRAPOLATION_SHARE * num), IMAGES_PER_FEATURE * num_features)
    if num < 2 * least:
        return None
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "extrapolation"))
    sizes = torch.linspace(least, num, EXTRAPOLATION_POINTS, dtype=torch.float64).long()
    distances = []
    for size in sizes.tolist():
        chosen = fake[torch.randperm(num, generator=stream)[:size]].double()
        # Tr (Σ₁Σ₂)^½ is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
        roots = torch.linalg.eigvalsh(root @ chosen.T.cov() @ root).clamp_min(0).sqrt().sum()
        traces = covariance.trace() + chosen.var(0).sum()
        distances.append((mean - chosen.mean(0)).square().sum() + traces - 2 * roots)
    line = torch.stack([torch.ones(len(sizes), dtype=torch.float64), 1 / sizes.double()], dim=1)
    return float(torch.linalg.lstsq(line, torch.stack(distances)).solution[0])


def frechet_sampling_error(real: Tensor, fake: Tensor) -> float | None:
    """Standard error of log FID from the choice of the generated images, the generator and the real images given.

    The delete-a-group jackknife: √((K - 1)/K · Σₖ (θₖ - mean θ)²), θₖ = log FID without the k-th of K groups
    (Shao and Wu, "A general theory for jackknife variance estimation", Annals of Statistics 17, 1989).

    Args:
        real: (N, D) feature vectors.
        fake: (M, D) feature vectors, in an order that means nothing.

    Returns:
        The error, or None where a FID is 0 and has no logarithm.
    """
    groups = fake.tensor_split(JACKKNIFE_GROUPS)
    without = [torch.cat(groups[:k] + groups[k + 1 :]) for k in range(len(groups))]
    distances = _frechet_distances(real, without)
    if 0 in distances:
        return None
    logs = torch.tensor([math.log(distance) for distance in distances], dtype=torch.float64)
    return math.sqrt((len(logs) - 1) * float(logs.var(correction=0)))


def kernel_distance(real: Tensor, fake: Tensor) -> float:
    """KID of two sets of feature vectors, (N, D) and (M, D): the mean over ``KID_SUBSETS`` subsets, always the same.

    It is the unbiased estimate of the squared maximum mean discrepancy under the kernel (a·b/D + 1)³
    (arXiv:1801.01401, section 4).
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all extracted features")
        metric = KernelInceptionDistance(
            feature=_Identity(real.shape[1]),
            subsets=KID_SUBSETS,
            subset_size=min(KID_SUBSET_SIZE, len(real), len(fake)),
        )
    for vectors, is_real in ((real, True), (fake, False)):
        metric.update(vectors.double(), real=is_real)
    # torchmetrics draws the subsets from PyTorch's global CPU stream, which is training's (dropout).
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(SCORING_SEED, "KID subsets"))
        mean, _ = metric.compute()
    return float(mean)


@dataclass(frozen=True)
class KernelDistance:
    """KID of a small set, from all pairs of images.

    Attributes:
        kid: the unbiased estimate of the squared maximum mean discrepancy.
        low: the lower end of its 95 % interval, the generator and the real images given.
        high: the upper end.
    """

    kid: float
    low: float
    high: float


def kernel_distance_of_few(real: Tensor, fake: Tensor) -> KernelDistance:
    """KID of all vectors at once, (N, D) and (M, D), with the interval of its delete-one jackknife over the M.

    With S = Σ k(fᵢ, fⱼ) over i ≠ j and C = Σ k(fᵢ, rⱼ), the estimate is S/(M(M-1)) - 2C/(MN) + R (arXiv:1801.01401,
    section 4); without fᵢ, S loses twice its row's sum and C its row's sum.
    """
    num, num_real, dim = len(fake), len(real), real.shape[1]
    real, fake = real.double(), fake.double()

    def row_sums(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([(rows @ b.T / dim + 1).pow(3).sum(1) for rows in a.split(_ROWS_AT_ONCE)])

    def without_self(a: Tensor) -> Tensor:
        return row_sums(a, a) - (a.square().sum(1) / dim + 1).pow(3)

    among_real = float(without_self(real).sum()) / (num_real * (num_real - 1))
    among, across = without_self(fake), row_sums(fake, real)
    kid = float(among.sum()) / (num * (num - 1)) - 2 * float(across.sum()) / (num * num_real) + among_real
    rest = (among.sum() - 2 * among) / ((num - 1) * (num - 2))
    rest = rest - 2 * (across.sum() - across) / ((num - 1) * num_real)
    error = math.sqrt((num - 1) * float(rest.var(correction=0)))
    return KernelDistance(kid, kid - 1.96 * error, kid + 1.96 * error)


def classifier_score(logits: Tensor) -> float:
    """Inception score with another classifier: exp of the mean KL(p(y|x) ‖ p(y)) (arXiv:1606.03498, section 4).

    Args:
        logits: (N, K) class scores.

    Returns:
        1 where every image looks like the same class, or like all of them alike, up to K.
    """
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    marginal = p.mean(0, keepdim=True)
    divergence = (p * (log_p - marginal.clamp_min(1e-300).log())).sum(1)
    return math.exp(float(divergence.mean()))


@dataclass(frozen=True)
class Manifold:
    """Feature vectors and the ball around each that reaches its ``NUM_NEIGHBOURS``-th nearest neighbour.

    Attributes:
        vectors: (N, D) float32.
        squared_radii: (N,) float32.
    """

    vectors: Tensor
    squared_radii: Tensor


def build_manifold(vectors: Tensor) -> Manifold:
    """Find the neighbourhood of every vector among the others: (N, D) float32, N > ``NUM_NEIGHBOURS``."""
    radii = [
        # The nearest of all is the vector itself.
        distances.topk(NUM_NEIGHBOURS + 1, largest=False).values[:, -1]
        for distances in (_squared_distances(rows, vectors) for rows in vectors.split(_ROWS_AT_ONCE))
    ]
    return Manifold(vectors, torch.cat(radii))


@dataclass(frozen=True)
class NeighbourScores:
    """How two sets of images overlap, by the balls around their feature vectors.

    Attributes:
        precision: share of generated images inside a real image's ball (arXiv:1904.06991, equation 2).
        recall: share of real images inside a generated image's ball (the same, equation 3).
        density: real balls around a generated image, over ``NUM_NEIGHBOURS`` (arXiv:2002.09797, equation 3).
        coverage: share of real images whose ball holds a generated image (the same, equation 4).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbour_scores(real: Manifold, fake: Manifold) -> NeighbourScores:
    """Compare two manifolds."""
    num_inside = []
    is_recalled = torch.zeros(len(real.vectors), dtype=torch.bool)
    is_covered = torch.zeros(len(real.vectors), dtype=torch.bool)
    chunks = zip(fake.vectors.split(_ROWS_AT_ONCE), fake.squared_radii.split(_ROWS_AT_ONCE), strict=True)
    for rows, squared_radii in chunks:
        distances = _squared_distances(rows, real.vectors)
        is_inside = distances <= real.squared_radii
        num_inside.append(is_inside.sum(1))
        is_covered |= is_inside.any(0)
        is_recalled |= (distances <= squared_radii[:, None]).any(0)
    counts = torch.cat(num_inside)
    return NeighbourScores(
        precision=float((counts > 0).double().mean()),
        recall=float(is_recalled.double().mean()),
        density=float(counts.double().mean()) / NUM_NEIGHBOURS,
        coverage=float(is_covered.double().mean()),
    )


def nearest_distance(vectors: Tensor, training: Tensor) -> float:
    """Median distance of ``vectors`` (N, D) to the nearest of the ``training`` vectors (M, D)."""
    nearest = [_squared_distances(rows, training).amin(1) for rows in vectors.split(_ROWS_AT_ONCE)]
    return float(torch.cat(nearest).clamp_min(0).sqrt().median())


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances, (N, D) and (M, D) → (N, M), as |a|² + |b|² - 2 a·b."""
    return torch.addmm(b.square().sum(1)[None], a, b.T, alpha=-2) + a.square().sum(1)[:, None]


class _Identity(nn.Module):
    """Stands where torchmetrics would put a network: the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors
