"""Which classes are asked for, in an order whose every beginning is balanced, and folds that see the classes alike."""

import math

import torch
from torch import Tensor

from mpdit.randomness import generator
from mpdit.scoring.frechet import Statistics
from mpdit.scoring.intervals import FOLDS

GOLDEN = (math.sqrt(5) - 1) / 2


def label_sequence(weights: Tensor, count: int, seed: int) -> Tensor:
    """Return the first labels of an endless sequence in which classes appear in proportion to their weights.

    A class of proportion p whose turn has the phase φ in (0, 1) is due at (φ, 1 + φ, 2 + φ, …)/p. The phases are evenly
    spread, in an order of the classes with low discrepancy (steps of the golden ratio around a circle) that the seed
    turns: the classes among the first few samples are spread evenly over all, and other ones for each seed.

    Args:
        weights: How often each class is asked for, relative to the others; not negative, not all 0: (classes,).
        count: How many labels.
        seed: Of the noise.

    Returns:
        (count,) int64. The first n labels hold each class n·p times, up to about one.
    """
    classes = len(weights)
    share = weights.double() / weights.double().sum()
    phase = (_ranks(classes, seed).double() + 0.5) / classes
    horizon = count + classes  # until when at least `count` labels are due
    each = (share * horizon - phase).floor().add(1).clamp_min(0).long()
    labels = torch.repeat_interleave(torch.arange(classes), each)
    number = torch.arange(len(labels)) - torch.repeat_interleave(each.cumsum(0) - each, each)
    due = (number + phase[labels]) / share[labels]
    return labels[due.argsort(stable=True)[:count]]


def _ranks(classes: int, seed: int) -> Tensor:
    """The place of each class in the order: (classes,)."""
    stride = round(classes * GOLDEN)
    while math.gcd(stride, classes) > 1:
        stride += 1
    start = int(torch.randint(classes, (1,), generator=generator(seed, 0, "first class")))
    ranks = torch.empty(classes, dtype=torch.int64)
    ranks[(start + torch.arange(classes) * stride) % classes] = torch.arange(classes)
    return ranks


def fold_numbers(labels: Tensor) -> Tensor:
    """Put samples into FOLDS folds of equal size, each of which holds each class equally often, up to one.

    The samples of a class go to folds in turn. Whenever all folds are equally large the order of folds is drawn anew,
    so that classes of a few samples do not meet in the same folds again and again.

    Args:
        labels: (count,).

    Returns:
        The fold of each sample, a function of the labels alone: (count,) int64.
    """
    order = labels.argsort(stable=True)
    sizes = labels.bincount()
    random, turn = generator(0, 0, "order of folds"), torch.arange(FOLDS)
    parts, first = [], 0
    for size in sizes[sizes > 0].tolist():
        if first % FOLDS == 0:
            turn = torch.randperm(FOLDS, generator=random)
        parts.append(turn[torch.arange(first, first + size) % FOLDS])
        first += size
    folds = torch.empty_like(labels)
    folds[order] = torch.cat(parts)
    return folds


def folds_by_class(features: Tensor, labels: Tensor, class_means: Tensor) -> list[Statistics]:
    """Return the statistics of each fold, from which what differs between classes alone is taken out.

    The number of samples of each class is fixed, so only what varies within a class is an error. A fold that holds one
    of the two samples of a class would count the class as noise: so a fold's sums are those of the deviations from the
    class's own sums, scaled so that the jackknife's variance is unbiased. Classes of one sample count as one class, and
    what differs between them is an error as far as classes were not seen: where a share f of all classes was, its
    variance is 1 − f of what their samples show (the correction for a finite population). What differs between classes
    is known from the real images. All folds together are the statistics of all samples.

    Args:
        features: (count, dimensions).
        labels: (count,).
        class_means: The mean features of each class's real images: (classes, dimensions).
    """
    labels = labels.to(torch.int64).cpu()
    folds = fold_numbers(labels)
    strata, alone = _strata(labels)
    members = torch.zeros(FOLDS, int(strata.max()) + 1, dtype=torch.float64)  # samples of each stratum in each fold
    members.index_put_((folds, strata), torch.ones(len(labels), dtype=torch.float64), accumulate=True)
    sizes = members.sum(0)
    spread = sizes - members.square().sum(0) / sizes
    scale = torch.where(spread > 0, sizes * (1 - 1 / FOLDS) / spread.clamp_min(1e-9), 0).sqrt()
    x = features.double()
    expected = class_means[labels[alone].to(class_means.device)].to(x)  # of the classes of one sample
    known = 1 - math.sqrt(max(0.0, 1 - len(labels.unique()) / len(class_means)))
    found = []
    for fold in range(FOLDS):
        inside = (folds == fold).double()
        deviation = scale[strata] * (inside - (members[fold] / sizes)[strata])
        sums = _weighted(x, deviation + inside.mean(), int(inside.sum()))
        found.append(sums - _weighted(expected, known * deviation[alone], 0) if len(expected) else sums)
    return found


def _weighted(x: Tensor, weight: Tensor, count: int) -> Statistics:
    """Return the sums over samples (count, dimensions), each times its weight: (count,)."""
    weight = weight.to(x.device)
    return Statistics(count, weight @ x, (x * weight[:, None]).T @ x)


def _strata(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Number the classes of several samples, and all of one sample together; which those are: both (count,)."""
    alone = labels.bincount()[labels] == 1
    return torch.unique(torch.where(alone, -1, labels), return_inverse=True)[1], alone
