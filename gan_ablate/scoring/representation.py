"""Representation: measure what the networks of a run have learnt besides generating images.

The DCGAN paper (arXiv:1511.06434, sections 5 and 6) shows it by a classifier on D's features, by arithmetic on latents
and by pictures of filters. Here each is a number that has a control in the same run.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from gan_ablate.scoring.scorer import sample_images, scoring_latents
from gan_ablate.scoring.scores import ProbeScores, RepresentationScores
from gan_ablate.seeding import SCORING_SEED, stream_seed
from gan_ablate.training.data import take_batch
from gan_ablate.training.models import build_discriminator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gan_ablate.design.config import RunConfig
    from gan_ablate.scoring.extractors import FeatureExtractor
    from gan_ablate.training.data import ImageDataset

NUM_LABELS = (30, 100, 300, 1_000)
"""Labelled images that a linear classifier learns from."""

NUM_TEST_IMAGES = 2_000

POOLED_SIDE = 4
"""Maps are max-pooled to 4×4 before they are classified, as in the paper's section 5.1."""

INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the classifier's weights; a fifth of the labelled images chooses among them."""

MAX_ITERATIONS = 200

LATENTS_PER_PAIR = 20
"""Latents of each class that are moved towards each other one."""

MIN_LATENTS_PER_CLASS = 50
"""A class that G draws less often has no mean worth the name."""

NUM_PATHS, NUM_PATH_STEPS = 8, 8
NUM_FILTERS, NUM_IMAGES_PER_FILTER = 8, 4

_BATCH = 500


@dataclass(frozen=True)
class Representation:
    """What was found, and what can be shown of it.

    Attributes:
        scores: the numbers.
        interpolation: (``NUM_PATHS`` · ``NUM_PATH_STEPS``, C, S, S) uint8, images along straight ways between latents,
            a row each.
        filters: (``NUM_FILTERS`` · 2 · ``NUM_IMAGES_PER_FILTER``, C, S, S) uint8, a row each for the filters of D's
            last map that know a class best: images that activate it most, then what in them does.
    """

    scores: RepresentationScores
    interpolation: Tensor
    filters: Tensor


def study_representation(
    config: RunConfig,
    generator: nn.Module,
    discriminator: nn.Module,
    dataset: ImageDataset,
    extractor: FeatureExtractor,
) -> Representation:
    """Measure what a trained pair has learnt.

    Args:
        config: the run, unconditional, on a data set with classes.
        generator: after training, on the CPU.
        discriminator: after training, on the CPU.
        dataset: its training images with their classes; D saw the images, never the classes.
        extractor: which tells the classes of generated images.
    """
    untrained = build_discriminator(config).to(memory_format=torch.channels_last)
    assert dataset.labels is not None
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "probe"))
    order = torch.randperm(len(dataset.images), generator=stream)
    test, rest = order[:NUM_TEST_IMAGES], order[NUM_TEST_IMAGES:]
    sides = {
        "trained": collect_features(discriminator, dataset.images),
        "untrained": collect_features(untrained, dataset.images),
        "pixels": [_as_input(dataset.images).flatten(1)],
    }
    labels = dataset.labels.cpu()
    pooled = {name: _pool(features) for name, features in sides.items()}
    probes = []
    for num in (number for number in NUM_LABELS if number <= len(rest)):
        accuracies = {name: probe(features, labels, rest[:num], test) for name, features in pooled.items()}
        probes.append(ProbeScores(num_labels=num, **accuracies))
    aucs = {name: class_aucs(_maxima(sides[name][-1][test]), labels[test]) for name in ("trained", "untrained")}
    arithmetic, shuffled = latent_arithmetic(config, generator, extractor)
    scores = RepresentationScores(
        probes=probes,
        arithmetic=arithmetic,
        arithmetic_shuffled=shuffled,
        filter_auc=float(aucs["trained"].max(1).mean()),
        filter_auc_untrained=float(aucs["untrained"].max(1).mean()),
    )
    chosen = np.argsort(-aucs["trained"].max(1), kind="stable")[:NUM_FILTERS]
    images = dataset.images[test]
    filters = draw_filters(discriminator, images, _maxima(sides["trained"][-1][test]), chosen.tolist())
    return Representation(scores, interpolate(config, generator), filters)


def collect_features(discriminator: nn.Module, images: Tensor) -> list[Tensor]:
    """Return what each hidden block of D makes of images, batch norm using its running averages.

    Args:
        discriminator: left as it was.
        images: (N, C, S, S) uint8.

    Returns:
        A tensor a block: (N, width) or (N, channels, side, side), float32.
    """
    network = copy.deepcopy(discriminator).eval()
    seen: list[list[Tensor]] = [[] for _ in _hidden_blocks(network)]
    for block, place in zip(_hidden_blocks(network), seen, strict=True):
        block.register_forward_hook(lambda _, __, output, place=place: place.append(output.clone()))
    with torch.inference_mode():
        for batch in images.split(_BATCH):
            network(_as_input(batch))
    return [torch.cat(parts) for parts in seen]


def probe(features: Tensor, labels: Tensor, train: Tensor, test: Tensor) -> float:
    """Return the accuracy of a logistic regression on standardised features.

    Args:
        features: (N, F) float32.
        labels: (N,) int64.
        train: indices of the labelled images; the last fifth of them chooses the weights' penalty.
        test: indices of those that it is judged on.
    """
    x, y = features.numpy(), labels.numpy()
    fit, choose = np.split(train.numpy(), [4 * len(train) // 5])

    def build(inverse_penalty: float) -> Pipeline:
        return make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=MAX_ITERATIONS))

    # One core is this run's: BLAS with a thread for every core of the machine would make them wait for one another.
    with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the weakest penalties may not converge, nor be chosen
        chosen = max(INVERSE_PENALTIES, key=lambda c: build(c).fit(x[fit], y[fit]).score(x[choose], y[choose]))
        return float(build(chosen).fit(x[train], y[train]).score(x[test], y[test]))


def class_aucs(activations: Tensor, labels: Tensor) -> NDArray[np.float64]:
    """Return how well each filter tells each class from the others.

    The area under the receiver operating characteristic is the chance that an image of the class activates the filter
    more than one of another class (Hanley and McNeil, Radiology 143, 1982); ties count half.

    Args:
        activations: (N, filters).
        labels: (N,) int64.

    Returns:
        (filters, classes) in [0, 1].
    """
    ranks = rankdata(activations.double().numpy(), axis=0)
    columns = []
    for label in labels.unique().tolist():
        is_of = (labels == label).numpy()
        num, num_others = int(is_of.sum()), int((~is_of).sum())
        columns.append((ranks[is_of].sum(0) - num * (num + 1) / 2) / (num * num_others))
    return np.stack(columns, axis=1)


def latent_arithmetic(
    config: RunConfig, generator: nn.Module, extractor: FeatureExtractor
) -> tuple[float | None, float | None]:
    """Move latents of one class by the difference of two classes' means, and see how often G then draws the other.

    Returns:
        The share that does, over all pairs of classes, and the same where the means are of latents whose classes were
        shuffled; None where fewer than two classes are drawn often enough.
    """
    device = torch.device("cpu")
    z, _ = scoring_latents(config, config.scoring.num_samples)
    classes = _classify(extractor, sample_images(generator, z, device))
    known = [label for label, num in enumerate(classes.bincount().tolist()) if num >= MIN_LATENTS_PER_CLASS]
    if len(known) < 2:
        return None, None
    stream = torch.Generator().manual_seed(stream_seed(SCORING_SEED, "arithmetic"))
    shuffled = classes[torch.randperm(len(classes), generator=stream)]
    shares = []
    for of_latents in (classes, shuffled):
        means = {label: z[of_latents == label].mean(0) for label in known}
        moved, wanted = [], []
        for start in known:
            for end in known:
                if start != end:
                    chosen = z[classes == start][:LATENTS_PER_PAIR]
                    moved.append(chosen - means[start] + means[end])
                    wanted.append(torch.full((len(chosen),), end))
        drawn = _classify(extractor, sample_images(generator, torch.cat(moved), device))
        shares.append((drawn == torch.cat(wanted)).float().mean().item())
    return shares[0], shares[1]


def interpolate(config: RunConfig, generator: nn.Module) -> Tensor:
    """Draw images along straight ways between latents, each point stretched to a usual length.

    A point half-way between two normal latents is shorter than almost any latent that G has met.
    """
    z, _ = scoring_latents(config, 2 * NUM_PATHS)
    first, second = z[:NUM_PATHS, None], z[NUM_PATHS:, None]
    share = torch.linspace(0, 1, NUM_PATH_STEPS)[None, :, None]
    points = torch.lerp(first, second, share)
    if config.latent_distribution == "normal":
        points = (
            points
            / points.norm(dim=2, keepdim=True)
            * torch.lerp(first.norm(dim=2, keepdim=True), second.norm(dim=2, keepdim=True), share)
        )
    return sample_images(generator, points.flatten(0, 1), torch.device("cpu"))


def draw_filters(discriminator: nn.Module, images: Tensor, activations: Tensor, filters: Sequence[int]) -> Tensor:
    """Show for each filter of D's last map the images that activate it most, and what in them does.

    That is the gradient of the activation in the image, where only what raises it flows back through each rectifier:
    guided backpropagation (arXiv:1412.6806, section 3.4).

    Args:
        discriminator: left as it was.
        images: (N, C, S, S) uint8.
        activations: (N, filters) the greatest activation in each image.
        filters: which of them.
    """
    network = copy.deepcopy(discriminator).eval().requires_grad_(requires_grad=False)
    for module in network.modules():
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            module.inplace = False
            module.register_full_backward_hook(_keep_what_raises)
    outputs: list[Tensor] = []
    _hidden_blocks(network)[-1].register_forward_hook(lambda _, __, output: outputs.append(output))
    rows = []
    for index in filters:
        most = activations[:, index].topk(NUM_IMAGES_PER_FILTER).indices
        x = _as_input(images[most]).requires_grad_()
        outputs.clear()
        network(x)
        (gradient,) = torch.autograd.grad(_maxima(outputs[0])[:, index].sum(), x)
        largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
        rows += [images[most], ((gradient / largest + 1) * 127.5).round().byte()]
    return torch.cat(rows)


def _keep_what_raises(_: nn.Module, gradients: tuple[Tensor, ...], __: object) -> tuple[Tensor]:
    return (gradients[0].clamp(min=0),)


def _as_input(images: Tensor) -> Tensor:
    return take_batch(images, torch.arange(len(images)))


def _hidden_blocks(discriminator: nn.Module) -> list[nn.Module]:
    return [block for name, block in discriminator.named_children() if name.startswith(("down", "hidden"))]


def _pool(features: Sequence[Tensor]) -> Tensor:
    """All blocks' features side by side, maps pooled: (N, F)."""
    return torch.cat(
        [
            nn.functional.adaptive_max_pool2d(x, min(POOLED_SIDE, x.shape[-1])).flatten(1) if x.ndim == 4 else x
            for x in features
        ],
        1,
    )


def _maxima(features: Tensor) -> Tensor:
    """The greatest activation of each map, or of each unit: (N, filters)."""
    return features.amax(dim=(2, 3)) if features.ndim == 4 else features


def _classify(extractor: FeatureExtractor, images: Tensor) -> Tensor:
    logits = extractor(images).logits
    assert logits is not None
    return logits.argmax(1)
