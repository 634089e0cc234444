"""How good is what a search has found after so many steps? `python benchmarks/search.py [--json] [--repetitions N]`.

Replays benchmarks/search_grid.jsonl (really trained: see benchmarks/search_record.py) in virtual time, with the trial
scheduler of `mpdit sweep`. Each repetition takes another part of the grid, another seed of the trainings and another
seed of the search; each way of searching takes the same ones. What counts is the regret of the point that is best so
far among those that have ended, at any length: how far its distance at full length, the mean over both seeds, is above
the lowest such mean of that part. Counted are all steps trained, those of stopped trials too, as shares of what the
part's grid takes.
`--rungs`: the rank correlation of scores at each length with those at the end, by EMA width.
"""

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import mean, stdev
from typing import Any

from scipy.stats import spearmanr
from search_record import GRID, LENGTHS, key, recorded  # beside this file

from sweeps.planning.plan import Plan, Trial, make_plan
from sweeps.search.simulator import Curve, simulate, steps_taken
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import read_spec
from sweeps.storage.events import CellScored, Event, TrialEnded

KEPT = {"model.modulation": 3, "optimizer.lr": 6}  # how many values of these axes a repetition takes
RUNGS = {"rungs": [steps / LENGTHS[-1] for steps in LENGTHS[:-1]], "reduction": 3}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "random": ({"algorithm": "random"}, {"kind": "none"}),
    "tpe": ({"algorithm": "tpe"}, {"kind": "none"}),
    "gp": ({"algorithm": "gp"}, {"kind": "none"}),
    "asha": ({"algorithm": "random"}, {"kind": "asha", **RUNGS}),
    "hyperband": ({"algorithm": "random"}, {"kind": "hyperband", **RUNGS}),
    "tpe+asha": ({"algorithm": "tpe"}, {"kind": "asha", **RUNGS}),
    "tpe+paired": ({"algorithm": "tpe"}, {"kind": "paired", **RUNGS}),
    **{
        f"halving-{start}": ({"algorithm": "grid"}, {"kind": "halving", "start": start, "factor": 3})
        for start in LENGTHS[:-1]
    },
}
OURS = "tpe+paired"
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the grid's steps
NEAR = 0.05  # a regret that is good enough
NOTHING = 10.0  # the regret before any trial has ended
Lines = dict[str, dict[str, Any]]


def lowest(line: dict[str, Any], steps: int = LENGTHS[-1]) -> float | None:
    """The distance of the best cell of a training at a length; None where it had diverged by then."""
    values = [cell["value"] for cell in line["lengths"].get(str(steps), []) if cell["value"] is not None]
    return min(values, default=None)


def curve_of(line: dict[str, Any], steps: int, sigma_rels: Sequence[float]) -> Curve:
    """A recorded training as the simulator takes it, at this length; a rung's scores are those of the shorter one."""
    rungs = {}
    for fraction, rung in zip(RUNGS["rungs"], LENGTHS, strict=False):  # the last length is no rung
        cells = line["lengths"].get(str(rung), [])
        rungs[fraction] = [_at_rung(cell, at) for cell, at in zip(cells, sigma_rels, strict=False)]
    diverged = line["diverged_at"]
    is_whole = diverged is None or diverged > steps
    return Curve(line["lengths"][str(steps)] if is_whole else [], rungs, diverges_at=None if is_whole else diverged)


def _at_rung(cell: dict[str, Any], sigma_rel: float) -> dict[str, Any]:
    return {"sigma_rel": sigma_rel} | {name: cell[name] for name in ("value", "left_out", "magnitude_drift")}


def parts(spec: SweepSpec, repetitions: int) -> Iterator[tuple[int, SweepSpec]]:
    """Yield another part of the grid for each repetition, with one seed of the trainings."""
    for repetition in range(repetitions):
        draw = random.Random(repetition)
        axes = dict(spec.axes)
        for axis, count in KEPT.items():
            kept = set(draw.sample(range(len(axes[axis])), count))
            axes[axis] = [value for at, value in enumerate(axes[axis]) if at in kept]
        axes["seed"] = [spec.axes["seed"][repetition % len(spec.axes["seed"])]]
        yield repetition, spec.model_copy(update={"axes": axes})


def regrets(part: SweepSpec, lines: Lines, seeds: Sequence[int]) -> dict[str, float]:
    """The regret of each training of a part: of its point, by the mean over seeds at full length."""
    found: dict[str, float] = {}
    for trial in make_plan(part).trials:
        values = [lowest(lines[key(trial.params | {"seed": seed})]) for seed in seeds]
        known = [value for value in values if value is not None]
        found[key(trial.params)] = mean(known) if len(known) == len(values) else float("inf")
    best = min(found.values())
    return {name: min(value / best - 1, NOTHING) for name, value in found.items()}


def course(plan: Plan, events: Sequence[Event], regret: dict[str, float]) -> list[tuple[int, float]]:
    """The regret of the best so far, with the steps taken until then, after each end of a trial."""
    names = {trial.id: key(trial.params) for trial in plan.trials}
    values: dict[str, list[float]] = defaultdict(list)
    best, found = (float("inf"), NOTHING), []
    for event, steps in zip(events, steps_taken(plan, events), strict=True):
        if isinstance(event, CellScored) and event.value is not None:
            values[event.trial].append(event.value)
        if isinstance(event, TrialEnded) and event.outcome == "completed" and values[event.trial]:
            best = min(best, (min(values[event.trial]), regret[names[event.trial]]))
            found.append((steps, best[1]))
    return found


def measure(way: str, spec: SweepSpec, lines: Lines, repetitions: int, slots: int) -> dict[str, Any]:
    """One way of searching: the mean regret and the half-width of its 95 % interval at each share of the grid."""
    search, scheduler = WAYS[way]
    seeds = spec.axes["seed"]
    at_shares: list[list[float]] = []
    courses = []
    for repetition, part in parts(spec, repetitions):
        points = len(make_plan(part).trials)
        chosen = search if search["algorithm"] == "grid" else search | {"trials": points, "seed": repetition}
        plan = make_plan(SweepSpec.model_validate(part.model_dump() | {"search": chosen, "scheduler": scheduler}))
        sigma_rels = spec.axes["ema.sigma_rel"]

        def curves(trial: Trial, widths: list[float] = sigma_rels) -> Curve:
            return curve_of(lines[key(trial.params)], trial.recipe.steps, widths)

        events = simulate(plan, curves, slots)
        total = points * spec.recipe.steps
        found = [(steps / total, regret) for steps, regret in course(plan, events, regrets(part, lines, seeds))]
        courses.append(found)
        at_shares.append([_at(found, share) for share in SHARES])
    columns = list(zip(*at_shares, strict=True))
    return {
        "way": way,
        "regret": [round(mean(column), 4) for column in columns],
        "interval": [round(1.96 * stdev(column) / len(column) ** 0.5, 4) for column in columns],
        "near": _near(courses),
    }


def _at(found: Sequence[tuple[float, float]], share: float) -> float:
    """The regret when this share of the grid's steps was taken."""
    return next((regret for steps, regret in reversed(found) if steps <= share), NOTHING)


def _near(courses: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """The share of the grid's steps from which on the mean regret is at most `NEAR`; None where it never is."""
    ends = sorted({steps for found in courses for steps, _ in found})
    far = [steps for steps in ends if mean(_at(found, steps) for found in courses) > NEAR]
    later = [steps for steps in ends if not far or steps > far[-1]]
    return round(later[0], 4) if later else None


def correlations(spec: SweepSpec, lines: Lines) -> list[dict[str, Any]]:
    """Spearman's rank correlation of each length and width with the best cell of the end, over all trainings."""
    whole = [line for line in lines.values() if lowest(line) is not None]
    ends = [lowest(line) for line in whole]
    rows = []
    for steps in LENGTHS[:-1]:
        row: dict[str, Any] = {"steps": steps}
        for at, sigma_rel in enumerate(spec.axes["ema.sigma_rel"]):
            row[f"σ_rel {sigma_rel:g}"] = rank_correlation(
                [one["lengths"][str(steps)][at]["value"] for one in whole], ends
            )
        row["best of them"] = rank_correlation([lowest(line, steps) for line in whole], ends)
        rows.append(row)
    return rows


def rank_correlation(early: Sequence[float | None], ends: Sequence[float | None]) -> float:
    """Spearman's, of the pairs that have both values."""
    known = [pair for pair in zip(early, ends, strict=True) if None not in pair]
    return round(float(spearmanr(*zip(*known, strict=True)).statistic), 2)


def table(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows of equal names."""
    print("  ".join(f"{name:>12}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>12}" for value in row.values()))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--slots", type=int, default=1, help="Trials at a time.")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--rungs", action="store_true", help="The rank correlations only.")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    spec, lines = read_spec(GRID), recorded()
    if given.rungs:
        table(correlations(spec, lines))
        return
    rows = [measure(way, spec, lines, given.repetitions, given.slots) for way in given.ways.split(",")]
    if given.json:
        nears = {row["way"]: row["near"] or 1.0 for row in rows}
        others = min((near for way, near in nears.items() if way != OURS), default=1.0)
        ratio = round(others / nears[OURS], 2)
        print(json.dumps({"name": "search", "device": "simulated", "ratio": ratio, "bar": 2.0, "details": rows}))
        return
    print(f"mean regret (± 95 %) at shares of the grid's steps, and the share from which on it is at most {NEAR:.0%}")
    names = [f"1/{1 / share:.0f}" for share in SHARES]
    cells = [
        [f"{regret:.3f}±{half:.3f}" for regret, half in zip(row["regret"], row["interval"], strict=True)]
        for row in rows
    ]
    table(
        [
            {"way": row["way"]} | dict(zip(names, texts, strict=True)) | {"near": row["near"]}
            for row, texts in zip(rows, cells, strict=True)
        ]
    )


if __name__ == "__main__":
    main()
