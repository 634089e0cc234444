"""How often the 95 % interval of a Fréchet distance holds: `python benchmarks/coverage.py [--json] [--repetitions N]`.

A model and its data are mixtures of 1,000 Gaussians, one a class. The distance of n samples is measured again and again
with other noise and another evaluation seed; its interval should hold the expected distance at that n (the distance is
biased in n) in 95 %. The repetitions are of ten mixtures: the seed turns one order of the classes, and one mixture's
few disjoint quarters may differ by less or more than those of others.
`in turn` is how classes and folds were made before: class i mod 1,000, folds of consecutive samples.
"""

import argparse
import json
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mpdit.scoring.class_balance import folds_by_class, label_sequence
from mpdit.scoring.frechet import Statistics, folds_of, left_out_distances, statistics
from mpdit.scoring.intervals import FOLDS, jackknife_error, t_critical

CLASSES, DIMENSIONS, MIXTURES = 1000, 4, 10
SIZES = (250, 1000, 2000, 10_000)
SPREADS = (0.0, 1.0)  # of the classes' means, where a class's own is about 1

Result = dict[str, float]


class Mixture:
    """A mixture of Gaussians and its data. number: which one; spread: of its classes' means."""

    def __init__(self, number: int, spread: float) -> None:
        source = torch.Generator().manual_seed(number)
        self.means = spread * torch.randn(CLASSES, DIMENSIONS, generator=source, dtype=torch.float64)
        self.scales = 0.5 + torch.rand(CLASSES, DIMENSIONS, generator=source, dtype=torch.float64)
        labels = torch.arange(200_000) % CLASSES
        images = 1.15 * self.draw(labels, 10**6) + 0.1
        self.real = statistics(images)
        self.class_means = torch.stack([images[labels == number].mean(0) for number in range(CLASSES)])

    def draw(self, labels: Tensor, seed: int) -> Tensor:
        """Draw samples of these labels (count,): (count, DIMENSIONS) float64."""
        noise = torch.randn(len(labels), DIMENSIONS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return self.means[labels] + self.scales[labels] * noise


Folds = Callable[[Mixture, int, int], list[Statistics]]


def balanced(mixture: Mixture, samples: int, seed: int) -> list[Statistics]:
    """Folds as they are made today."""
    labels = label_sequence(torch.ones(CLASSES), samples, seed)
    return folds_by_class(mixture.draw(labels, seed), labels, mixture.class_means)


def in_turn(mixture: Mixture, samples: int, seed: int) -> list[Statistics]:
    """Folds as they were made before."""
    return folds_of(mixture.draw(torch.arange(samples) % CLASSES, seed))


def coverage(folds: Folds, mixtures: Sequence[Mixture], samples: int, times: int) -> Result:
    """How often the interval holds, and the error told as a share of the true one; `times` of each mixture."""
    held, told, true = [], [], []
    for number, mixture in enumerate(mixtures):
        seeds = range(number * times, (number + 1) * times)
        found = [left_out_distances(folds(mixture, samples, seed), mixture.real) for seed in seeds]
        values = np.array([value for value, _ in found])
        errors = np.array([jackknife_error(left_out) for _, left_out in found])
        held.append(np.abs(values - values.mean()) <= t_critical(FOLDS - 1) * errors)
        told.append((errors**2).mean())
        true.append(values.var(ddof=1))
    return {"covers": float(np.mean(held)), "error": float(np.sqrt(np.mean(told) / np.mean(true)))}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for spread in SPREADS:
        mixtures = [Mixture(number, spread) for number in range(MIXTURES)]
        for samples in SIZES:
            row: dict[str, float] = {"spread of means": spread, "samples": samples}
            for name, folds in (("balanced", balanced), ("in turn", in_turn)):
                result = coverage(folds, mixtures, samples, max(2, given.repetitions // MIXTURES))
                row |= {f"{name}: {what}": value for what, value in result.items()}
            rows.append(row)
            if not given.json:
                print("| " + " | ".join(f"{value:.4g}" for value in row.values()) + " |", flush=True)
    if given.json:
        worst = max(abs(row["balanced: covers"] - 0.95) for row in rows)
        print(json.dumps({"name": "coverage", "device": "cpu", "ratio": 0.02 / worst, "bar": 1.0, "details": rows}))


if __name__ == "__main__":
    main()
