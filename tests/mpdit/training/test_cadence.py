"""Reports, snapshots and grids of samples follow from the present step alone, so a short training begins a long one."""

import numpy as np
import pytest

from mpdit.training import ema
from mpdit.training.cadence import (
    counts,
    first_snapshot,
    is_reported,
    is_sampled,
    is_snapshot,
    kept_snapshots,
    snapshot_gap,
)

SIGMA_RELS = (0.015, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25)
LENGTHS = [1, 2, 3, 7, 31, 39, 40, 127, 128, 129, 300, 1000, 2047, 400_000]


def test_what_is_kept_was_taken_and_is_never_missed_later() -> None:
    kept: set[int] = set()
    for now in range(1, 3000):
        wanted = set(kept_snapshots(now))
        assert wanted - {now} <= kept
        kept = wanted if is_snapshot(now) else wanted - {now}


def test_the_gap_around_a_step_never_shrinks() -> None:
    for step in (1, 7, 64, 1000):
        gaps = [snapshot_gap(step, now) for now in range(step, 64 * step + 1)]
        assert gaps == sorted(gaps)


@pytest.mark.parametrize("steps", LENGTHS)
def test_the_snapshots_are_few_end_at_the_last_step_and_lie_closest_there(steps: int) -> None:
    kept = kept_snapshots(steps)
    assert kept[-1] == steps
    assert kept == sorted(set(kept))
    assert kept[0] >= 1
    assert len(kept) <= 36
    if steps > 1000:
        gaps = np.diff(kept[:-1])
        assert gaps[-1] <= steps / 32
        assert gaps[-1] < gaps[len(gaps) // 2]


def test_every_width_is_nearly_exact_at_every_step_from_40_on() -> None:
    """Averages of a random walk, whose weights wander as trained ones do, against those tracked directly."""
    random = np.random.default_rng(0)
    steps = 700
    walk = 10 * random.standard_normal((1, 32)) + random.standard_normal((steps, 32)).cumsum(0) * 0.05
    walk += 0.5 * random.standard_normal((steps, 32))
    tracked = {width: averages(walk, width) for width in {*SIGMA_RELS, *ema.TRACKED_SIGMA_RELS}}
    for now in [40, 41, 63, 64, 65, 100, 127, 255, 256, 300, 511, 513, 700]:
        pairs = [(step, width) for step in kept_snapshots(now) for width in ema.TRACKED_SIGMA_RELS]
        for width in SIGMA_RELS:
            shares = ema.posthoc_coefficients([s for s, _ in pairs], [w for _, w in pairs], now, width)
            rebuilt = sum(share * tracked[w][s - 1] for share, (s, w) in zip(shares, pairs, strict=True))
            direct = tracked[width][now - 1]
            assert np.linalg.norm(rebuilt - direct) < 1e-3 * np.linalg.norm(direct), (now, width)


def averages(walk: np.ndarray, width: float) -> np.ndarray:
    """The EMA after each step: (steps, weights)."""
    found, average = np.zeros_like(walk), np.zeros_like(walk[0])
    for step, now in enumerate(walk, start=1):
        beta = ema.power_function_beta(width, step)
        average = beta * average + (1 - beta) * now
        found[step - 1] = average
    return found


@pytest.mark.parametrize("steps", LENGTHS)
def test_the_counts_are_those_of_a_training_step_by_step(steps: int) -> None:
    before = range(1, min(steps, 5000))
    if steps <= 5000:
        assert counts(steps) == (sum(map(is_reported, before)) + 1, sum(map(is_snapshot, before)) + 1)
    else:
        assert counts(steps)[0] < 500


def test_reports_are_denser_early_and_never_far_apart() -> None:
    reported = [step for step in range(1, 20_001) if is_reported(step)]
    assert reported[:8] == [1, 2, 4, 8, 16, 32, 48, 64]
    gaps = np.diff(reported)
    assert (gaps == sorted(gaps)).all()
    assert gaps.max() == 1024


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, [0, 1]), (33, [0, 32, 33]), (300, [0, 32, 64, 128, 256, 300]), (64, [0, 32, 64])]
)
def test_samples_are_drawn_at_powers_of_two_and_at_both_ends(steps: int, expected: list[int]) -> None:
    assert [step for step in range(steps + 1) if is_sampled(step) or step == steps] == expected
    assert all(is_snapshot(step) for step in expected[1:-1])


def test_a_fraction_of_a_training_has_the_first_snapshot_from_there_on() -> None:
    assert first_snapshot(0.5, 8) == 4
    assert first_snapshot(0.5, 450) == 228
    assert first_snapshot(1.0, 451) == 451
    assert first_snapshot(1e-9, 100) == 1
