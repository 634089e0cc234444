"""How often the 95 % interval of a Fréchet distance holds: `python benchmarks/coverage.py [--json]`.

A model and its data are mixtures of 1,000 Gaussians, one a class. The distance of n samples is measured again and again
with other noise; its interval should hold the expected distance at that n (the distance is biased in n) in 95 %.
`in turn` is how classes and folds were made before: class i mod 1,000, folds of consecutive samples.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mpdit.scoring.class_balance import folds_by_class, label_sequence
from mpdit.scoring.frechet import Statistics, folds_of, left_out_distances, statistics
from mpdit.scoring.intervals import FOLDS, jackknife_error, t_critical

CLASSES, DIMENSIONS = 1000, 4
SIZES = (250, 2000, 10_000)
SPREADS = (0.0, 1.0)  # of the classes' means, where a class's own is about 1

Draw = Callable[[Tensor, int], Tensor]
Result = dict[str, float]


def mixture(spread: float) -> Draw:
    """A function that draws samples of given labels (count,) with a seed: (count, DIMENSIONS) float64."""
    source = torch.Generator().manual_seed(5)
    means = spread * torch.randn(CLASSES, DIMENSIONS, generator=source, dtype=torch.float64)
    scales = 0.5 + torch.rand(CLASSES, DIMENSIONS, generator=source, dtype=torch.float64)

    def draw(labels: Tensor, seed: int) -> Tensor:
        noise = torch.Generator().manual_seed(seed)
        return means[labels] + scales[labels] * torch.randn(
            len(labels), DIMENSIONS, generator=noise, dtype=torch.float64
        )

    return draw


def balanced(draw: Draw, samples: int, seed: int) -> list[Statistics]:
    """Folds as they are made today."""
    labels = label_sequence(torch.ones(CLASSES), samples, seed)
    return folds_by_class(draw(labels, seed), labels)


def in_turn(draw: Draw, samples: int, seed: int) -> list[Statistics]:
    """Folds as they were made before."""
    return folds_of(draw(torch.arange(samples) % CLASSES, seed))


def coverage(folds: Callable[[Draw, int, int], list[Statistics]], draw: Draw, samples: int, times: int) -> Result:
    """How often the interval holds, and the mean error told as a share of the true one."""
    real = statistics(1.15 * draw(torch.arange(200_000) % CLASSES, 10**6) + 0.1)
    found = [left_out_distances(folds(draw, samples, seed), real) for seed in range(times)]
    values = np.array([value for value, _ in found])
    errors = np.array([jackknife_error(left_out) for _, left_out in found])
    held = np.abs(values - values.mean()) <= t_critical(FOLDS - 1) * errors
    return {"covers": float(held.mean()), "error": float(errors.mean() / values.std(ddof=1))}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for spread in SPREADS:
        for samples in SIZES:
            row: dict[str, float] = {"spread of means": spread, "samples": samples}
            for name, folds in (("balanced", balanced), ("in turn", in_turn)):
                result = coverage(folds, mixture(spread), samples, given.repetitions)
                row |= {f"{name}: {what}": value for what, value in result.items()}
            rows.append(row)
            if not given.json:
                print("| " + " | ".join(f"{value:.4g}" for value in row.values()) + " |", flush=True)
    if given.json:
        worst = max(abs(row["balanced: covers"] - 0.95) for row in rows)
        print(json.dumps({"name": "coverage", "device": "cpu", "ratio": 0.02 / worst, "bar": 1.0, "details": rows}))


if __name__ == "__main__":
    main()
