"""A holdout: which images it keeps out of training, and that everything else stays as it was."""

import math
from dataclasses import replace

import pytest
import torch

from mpdit.data.dataset import Dataset
from mpdit.data.holdout import held_out_mask, with_holdout
from mpdit.data.registry import DATASETS, load_dataset
from mpdit.errors import InputError
from mpdit.randomness import Draws
from mpdit.registry import settings_of


def made(labels: torch.Tensor, fingerprint: str = "made") -> Dataset:
    images = torch.arange(len(labels), dtype=torch.float32).reshape(-1, 1, 1, 1)
    return Dataset(
        "made",
        labels,
        int(labels.max()) + 1,
        1,
        1,
        1.0,
        fingerprint,
        4,
        lambda index: (images[index],),
        real=lambda index: (images[index] % 256).to(torch.uint8),
    )


@pytest.mark.parametrize("fraction", [0.05, 0.1, 1 / 3, 0.9])
def test_both_sides_together_are_the_set_and_each_class_gives_its_share(fraction: float) -> None:
    whole, part = load_dataset("digits"), load_dataset("digits", holdout=fraction)
    rest = part.held_out
    assert rest is not None
    assert len(rest) == round(fraction * len(whole))
    both = torch.cat([part.images, rest.images]).flatten(1)
    assert torch.equal(both.sum(0), whole.images.flatten(1).sum(0))  # whole numbers of eighths: exact
    assert len(part) + len(rest) == len(whole)
    for label, count in enumerate(whole.labels.bincount().tolist()):
        assert abs(int((rest.labels == label).sum()) - fraction * count) < 2
    index = torch.tensor([5, 3, 100])
    assert torch.equal(part.batch(index, Draws(0, 1, 3, slice(None))), part.to("cpu").images[index])


def test_images_labels_and_what_they_are_measured_against_stay_together() -> None:
    whole = made(torch.arange(100) % 7)
    part = with_holdout(whole, 0.2)
    for side in (part, part.held_out):
        assert side is not None
        rows = side.images.flatten().long()
        assert torch.equal(side.labels, rows % 7)
        assert torch.equal(side.pixels(torch.arange(len(side))).flatten().long(), rows)


def test_the_choice_depends_on_the_data_and_the_fraction_alone() -> None:
    digits = load_dataset("digits")
    torch.manual_seed(3)
    assert torch.equal(held_out_mask(digits, 0.1), held_out_mask(replace(digits), 0.1))
    other = held_out_mask(replace(digits, fingerprint="sha256:other"), 0.1)
    assert not torch.equal(held_out_mask(digits, 0.1), other)
    assert load_dataset("digits", holdout=0.1).fingerprint != load_dataset("digits", holdout=0.2).fingerprint


def test_without_a_holdout_the_set_is_as_it_was() -> None:
    digits = load_dataset("digits", holdout=0.0)
    assert digits.held_out is None
    assert digits.fingerprint == load_dataset("digits").fingerprint
    assert with_holdout(digits, 0.0) is digits


def test_every_class_keeps_an_image_in_training() -> None:
    whole = made(torch.cat([torch.arange(50), torch.zeros(50, dtype=torch.int64)]))  # 49 classes of one image
    part = with_holdout(whole, 0.4)
    assert part.labels.unique().tolist() == list(range(50))


@pytest.mark.parametrize("fraction", [1e-9, 0.001, 0.999, math.nextafter(1, 0)])
def test_a_holdout_that_leaves_no_image_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=r"leaves too few of the 1,797 images[\s\S]*allowed: +8 to 1,787 images"):
        load_dataset("digits", holdout=fraction)


def test_a_set_that_is_too_small_for_any_holdout_is_told_so() -> None:
    with pytest.raises(InputError, match="the set is too small"):
        with_holdout(made(torch.arange(10)), 0.5)


@pytest.mark.parametrize("kind", list(DATASETS), ids=lambda kind: kind.name)
def test_every_data_set_can_hold_images_out(kind: object) -> None:
    assert settings_of(kind)["holdout"].default == 0.0
