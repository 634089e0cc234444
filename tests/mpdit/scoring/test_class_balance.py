"""Classes in an order whose every beginning is balanced, and folds whose error holds for many classes."""

import numpy as np
import pytest
import torch

from mpdit.scoring import frechet
from mpdit.scoring.class_balance import fold_numbers, folds_by_class, label_sequence
from mpdit.scoring.intervals import FOLDS, jackknife_error, t_critical

UNEVEN = torch.rand(1000, generator=torch.Generator().manual_seed(1)) + 0.3


@pytest.mark.parametrize("weights", [torch.ones(1), torch.ones(10), torch.ones(1000), UNEVEN, torch.tensor([0, 5, 1])])
def test_every_beginning_of_the_labels_is_balanced(weights: torch.Tensor) -> None:
    labels, share = label_sequence(weights, 20_000, seed=3), weights.double() / weights.sum()
    for count in (1, 5, 37, 250, 999, 2000, 3333, 20_000):
        found = labels[:count].bincount(minlength=len(weights))
        assert (found - count * share).abs().max() < 1.5
        assert torch.equal(label_sequence(weights, count, seed=3), labels[:count])


def test_few_samples_see_the_classes_evenly_and_another_seed_sees_others() -> None:
    first, other = (label_sequence(torch.ones(1000), 250, seed) for seed in (0, 1))
    assert len(first.unique()) == 250
    assert (first // 100).bincount().tolist() == pytest.approx([25] * 10, abs=5)
    assert len(set(first.tolist()) & set(other.tolist())) < 250


@pytest.mark.parametrize(
    ("classes", "count"), [(1000, 2000), (1000, 2500), (10, 2000), (10, 1999), (7, 10), (1000, 250)]
)
def test_folds_are_of_one_size_and_see_each_class_equally_often(classes: int, count: int) -> None:
    labels = label_sequence(torch.ones(classes), count, seed=0)
    folds = fold_numbers(labels)
    assert folds.bincount(minlength=FOLDS).max() - folds.bincount(minlength=FOLDS).min() <= 1
    seen = torch.zeros(FOLDS, classes, dtype=torch.int64).index_put_((folds, labels), torch.tensor(1), accumulate=True)
    assert (seen.max(0).values - seen.min(0).values).max() <= 1


@pytest.mark.parametrize(("classes", "count"), [(10, 500), (300, 500), (1000, 250), (1, 50), (600, 601), (49, 50)])
def test_all_folds_together_are_all_samples(classes: int, count: int) -> None:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    found = folds_by_class(x, label_sequence(torch.ones(classes), count, seed=0), torch.randn(classes, 4))
    whole, joined = frechet.statistics(x), sum(found[1:], found[0])
    assert joined.count == count
    torch.testing.assert_close(joined.total, whole.total)
    torch.testing.assert_close(joined.products, whole.products)


def test_of_one_class_the_folds_are_plain_ones() -> None:
    x, labels = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(200, dtype=torch.int64)
    for fold, found in enumerate(folds_by_class(x, labels, torch.zeros(1, 4))):
        torch.testing.assert_close(found.products, frechet.statistics(x[fold_numbers(labels) == fold]).products)


@pytest.mark.parametrize(("count", "left"), [(250, 0.75), (900, 0.1), (1000, 0.0)])
def test_classes_that_differ_are_an_error_as_far_as_they_were_not_seen(count: int, left: float) -> None:
    """Samples that are their class's mean: only which classes were seen varies, with 1 − f of the variance."""
    means = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = label_sequence(torch.ones(1000), count, seed=0)
    plain, corrected = (
        torch.stack([fold.total for fold in folds_by_class(means[labels], labels, known)])
        for known in (torch.zeros(1000, 4), means)
    )
    torch.testing.assert_close(corrected.var(0), left * plain.var(0), rtol=1e-5, atol=1e-9)


def test_class_means_matter_only_where_a_class_has_one_sample() -> None:
    x, labels = torch.randn(2000, 4), label_sequence(torch.ones(1000), 2000, seed=0)
    one, other = (folds_by_class(x, labels, means) for means in (torch.zeros(1000, 4), torch.randn(1000, 4)))
    assert all(torch.equal(a.products, b.products) for a, b in zip(one, other, strict=True))


def covered(samples: int, plain: bool = False, repetitions: int = 300) -> float:
    """How often the 95 % interval holds the expected distance of a mixture of 1,000 Gaussians, one a class."""
    source, dimensions = torch.Generator().manual_seed(5), 2
    centres = torch.randn(1000, dimensions, generator=source, dtype=torch.float64)

    def draw(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = label_sequence(torch.ones(1000), count, seed)
        noise = torch.Generator().manual_seed(seed)
        return centres[labels] + torch.randn(count, dimensions, generator=noise, dtype=torch.float64), labels

    images, of_class = draw(40_000, 999)
    means = torch.stack([images[of_class == number].mean(0) for number in range(1000)])
    real, values, errors = frechet.statistics(1.15 * images + 0.1), [], []
    for seed in range(repetitions):
        x, labels = draw(samples, seed)
        folds = frechet.folds_of(x) if plain else folds_by_class(x, labels, 1.15 * means + 0.1)
        value, left_out = frechet.left_out_distances(folds, real)
        values.append(value)
        errors.append(jackknife_error(left_out))
    return float(np.mean(np.abs(values - np.mean(values)) <= t_critical(FOLDS - 1) * np.array(errors)))


@pytest.mark.parametrize("samples", [250, pytest.param(2000, marks=pytest.mark.slow)])
def test_the_interval_covers_with_hundreds_of_classes(samples: int) -> None:
    assert 0.93 <= covered(samples) <= 0.97


def test_consecutive_folds_call_the_classes_noise() -> None:
    assert covered(2000, plain=True) > 0.97
