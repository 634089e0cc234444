"""A holdout: images that no training sees, which tell what a model has learnt from what it has learnt by heart.

Which images those are depends on the data's fingerprint and on the fraction alone: every seed of a sweep trains on the
same ones. Each class gives its share, to one image, and keeps at least one image in training.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mpdit.data.dataset import Dataset
from mpdit.errors import input_error
from mpdit.lazy_modules import lazy_module
from mpdit.randomness import generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

FEWEST = 8  # images on either side; fewer have no distance


def with_holdout(dataset: Dataset, fraction: float) -> Dataset:
    """Return the part of a set that is trained on, whose `held_out` is the rest; 0 leaves the set as it is.

    Raises:
        InputError: the fraction leaves too few images on one of the two sides.
    """
    if not fraction:
        return dataset
    is_held_out = held_out_mask(dataset, fraction)
    rest = _part(dataset, is_held_out, f"held out {fraction!r}")
    return replace(_part(dataset, ~is_held_out, f"without {fraction!r}"), held_out=rest)


def held_out_mask(dataset: Dataset, fraction: float) -> Tensor:
    """Choose the images that are held out: (count,) bool. Raises InputError where one side has too few images."""
    count = len(dataset)
    random = torch.rand(count, generator=generator(0, 0, f"holdout of {dataset.fingerprint}"), dtype=torch.float64)
    order = random.argsort()
    order = order[dataset.labels[order].argsort(stable=True)]  # by class, at random within each
    labels = dataset.labels[order]
    is_first = torch.ones(count, dtype=torch.bool)
    is_first[1:] = labels[1:] != labels[:-1]
    candidates = order[~is_first]
    wanted, most = round(fraction * count), min(len(candidates), count - FEWEST)
    if not FEWEST <= wanted <= most:
        raise input_error(
            f"a holdout of {fraction:g} leaves too few of the {count:,} images of {dataset.name} "
            + ("out of training" if wanted < FEWEST else "in training"),
            given=f"holdout: {fraction:g}, {max(0, wanted):,} images held out",
            allowed=f"{FEWEST} to {most:,} images: {FEWEST / count:.4g} to {most / count:.4g}; 0 holds out none"
            if most >= FEWEST
            else f"0: the set is too small for {FEWEST} images on either side and one of each class in training",
        )
    place = torch.arange(len(candidates))
    mask = torch.zeros(count, dtype=torch.bool)
    mask[candidates[(place + 1) * wanted // len(candidates) > place * wanted // len(candidates)]] = True
    return mask


def _part(dataset: Dataset, mask: Tensor, name: str) -> Dataset:
    """Return the images that a mask (count,) chooses, in their order. name: what their fingerprint adds."""
    rows, real = mask.nonzero()[:, 0], dataset.real
    return replace(
        dataset,
        labels=dataset.labels[rows],
        fingerprint=f"{dataset.fingerprint}+{name}",
        read=lambda index: dataset.read(rows[index.cpu()]),
        real=None if real is None else lambda index: real(rows[index.cpu()]),
    )
