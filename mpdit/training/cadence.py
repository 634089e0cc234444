"""When a training reports, keeps snapshots and draws samples: by its present step alone, not by how long it will be.

So a training of N steps is the beginning of every longer one. Gaps are powers of two that grow with the step; at its
last step a training also does all of it.
"""

import math
from collections.abc import Callable

NEAR = 1 / 40  # of the present step: the gap between the newest snapshots, for the narrowest EMA (σ_rel 0.015)
BEHIND = 1 / 8  # of the distance to the present step: the gap grows so far behind it
LARGEST = 1 / 4  # of a snapshot's own step: no gap is larger
REACH = 32  # snapshots older than 1/32 of the present step no longer count in any EMA

FIRST_REPORTS = 16  # steps, up to which reports are at the powers of two, and the smallest gap after them
REPORT_GAP = 1 / 8  # of the present step
LARGEST_REPORT_GAP = 1024  # steps
FIRST_SAMPLES = 32  # steps


def snapshot_gap(step: int, now: int) -> int:
    """The gap between the snapshots that are kept around `step` while the training is at `now`: a power of two.

    It never shrinks as `now` grows, so what is kept later was kept before.
    """
    return _power_of_two(min(BEHIND * (now - step) + NEAR * step, LARGEST * step))


def is_snapshot(step: int) -> bool:
    """Whether a snapshot is taken at this step."""
    return step % snapshot_gap(step, step) == 0


def kept_snapshots(now: int) -> list[int]:
    """The steps whose snapshots give the EMAs of the step `now`, which is the last of them.

    From step 40 on, each EMA of a σ_rel between 0.015 and 0.25 is within 1e-3 of the one that is tracked directly.
    """
    first = max(1, now // REACH)
    least = _power_of_two(min(NEAR * now, LARGEST * first))  # no gap is smaller
    candidates = range(-(-first // least) * least, now, least)
    return [step for step in candidates if step % snapshot_gap(step, now) == 0] + [now]


def report_gap(step: int) -> int:
    """The gap between the reports around `step`."""
    if step <= FIRST_REPORTS:
        return _power_of_two(step)
    return min(max(FIRST_REPORTS, _power_of_two(REPORT_GAP * step)), LARGEST_REPORT_GAP)


def is_reported(step: int) -> bool:
    """Whether a report and a checkpoint follow this step."""
    return step % report_gap(step) == 0


def counts(steps: int) -> tuple[int, int]:
    """How many reports a training of so many steps makes after its first one, and how many snapshots it takes."""
    return _due(steps, report_gap), _due(steps, lambda step: snapshot_gap(step, step))


def _due(steps: int, gap: Callable[[int], int]) -> int:
    """How many steps are a multiple of the gap around them, and the last one."""
    found, step = 1, 1
    while step < steps:
        found += step % gap(step) == 0
        step += gap(step) - step % gap(step)
    return found


def is_sampled(step: int) -> bool:
    """Whether a grid of samples is drawn at this step: before the first, and at the powers of two from 32 on."""
    return step == 0 or (step >= FIRST_SAMPLES and step == _power_of_two(step))


def first_snapshot(fraction: float, steps: int) -> int:
    """The first step with a snapshot at this fraction of a training of `steps` steps, or after it."""
    return next((s for s in range(max(1, math.ceil(fraction * steps)), steps) if is_snapshot(s)), steps)


def _power_of_two(size: float) -> int:
    """The largest power of two that is at most `size`; 1 below 1."""
    return 2 ** math.floor(math.log2(size)) if size >= 1 else 1
