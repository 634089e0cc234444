"""How many training steps until the grid's best cell? `python benchmarks/search.py [--json] [--repetitions N]`.

Replays benchmarks/search_grid.jsonl (really trained: see benchmarks/search_record.py) in virtual time, with the
trial scheduler of `mpdit sweep`. Each way of searching is repeated with other search seeds. Counted are all steps
trained, those of stopped trials too, until the trial that holds the grid's best cell has ended; where a scheduler has
stopped that trial, the whole grid's steps are counted. "tied": until a cell that `mpdit rank` would mark as tied.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from sweeps.planning.plan import Plan, Trial, make_plan
from sweeps.results.uncertainty import Measured, difference
from sweeps.search.simulator import Curve, simulate, steps_taken
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import read_spec
from sweeps.storage.events import Event, TrialEnded, TrialStarted

HERE = Path(__file__).parent
GRID, RECORDED = HERE / "search_grid.yaml", HERE / "search_grid.jsonl"
BAR, FIRST_AXIS = 8.0, "model.modulation"
Lines = dict[str, dict[str, Any]]
HALF = {"rungs": [0.5], "reduction": 2}  # after the learning rate has begun to fall, at 0.4
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "random": ({"algorithm": "random"}, {"kind": "none"}),
    "asha": ({"algorithm": "random"}, {"kind": "asha", **HALF}),
    "tpe": ({"algorithm": "tpe"}, {"kind": "none"}),
    "gp": ({"algorithm": "gp"}, {"kind": "none"}),
    "ours": ({"algorithm": "tpe"}, {"kind": "paired", **HALF}),
}


def recorded() -> dict[str, dict[str, Any]]:
    """What was recorded, by the trial's id."""
    lines = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    return {line["trial"]: line for line in lines}


def complete(spec: SweepSpec, lines: Lines) -> tuple[SweepSpec, Lines]:
    """The part of the grid that is recorded for every value of the other axes: the whole of it, unless one was stopped.

    To complete it: benchmarks/search_record.py.
    """
    trials = make_plan(spec).trials
    whole = [
        name
        for name in spec.axes[FIRST_AXIS]
        if all(trial.id in lines for trial in trials if trial.params[FIRST_AXIS] == name)
    ]
    kept = {trial.id: lines[trial.id] for trial in trials if trial.params[FIRST_AXIS] in whole}
    return spec.model_copy(update={"axes": spec.axes | {FIRST_AXIS: whole}}), kept


def curve_of(line: dict[str, Any]) -> Curve:
    """A recorded training as the simulator takes it."""
    rungs = {rung["share"]: rung["widths"] for rung in line["rungs"]}
    cells = [{"left_out": None, **cell} for cell in line["cells"]]
    return Curve(cells, rungs, diverges_at=line.get("step") if line["outcome"] == "diverged" else None)


def best_values(lines: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each trial's best cell."""
    scored = {trial: [cell for cell in line["cells"] if cell["value"] is not None] for trial, line in lines.items()}
    return {trial: min(cells, key=lambda cell: cell["value"]) for trial, cells in scored.items() if cells}


def tied_with(best: dict[str, dict[str, Any]]) -> set[str]:
    """The best trial and those that `mpdit rank` would mark as tied with it, whose errors cannot tell them apart."""
    first = measured(min(best.values(), key=lambda cell: cell["value"]))
    found = ((trial, difference(measured(cell), first, same_training=False)) for trial, cell in best.items())
    return {trial for trial, gap in found if gap is not None and gap.is_tie}


def measured(cell: dict[str, Any]) -> Measured:
    """A recorded cell as the ranking knows it."""
    return Measured({0: cell["value"]}, cell["left_out"], None, 1000)


def until(plan: Plan, events: Sequence[Event], wanted: set[str]) -> int | None:
    """The steps taken when the first of these trials had completed."""
    for line, steps in zip(events, steps_taken(plan, events), strict=True):
        if isinstance(line, TrialEnded) and line.outcome == "completed" and line.trial in wanted:
            return steps
    return None


def measure(
    way: str, spec: SweepSpec, lines: dict[str, dict[str, Any]], repetitions: int, slots: int
) -> dict[str, Any]:
    """One way of searching, over its seeds: shares of the grid's steps."""
    best = best_values(lines)
    winner, tied = {min(best, key=lambda trial: best[trial]["value"])}, tied_with(best)
    search, scheduler = WAYS[way]
    total = sum(line["steps"] for line in lines.values())

    def curves(trial: Trial) -> Curve:
        return curve_of(lines[trial.id])

    def enough(line: Event) -> bool:
        return line.trial in winner and isinstance(line, TrialEnded)

    found: dict[str, list[int | None]] = {"best": [], "tied": []}
    begun = []
    for seed in range(repetitions):
        fields = spec.model_dump() | {"search": search | {"trials": len(lines), "seed": seed}, "scheduler": scheduler}
        plan = make_plan(SweepSpec.model_validate(fields))
        events = simulate(plan, curves, slots, enough=enough)
        found["best"].append(until(plan, events, winner))
        found["tied"].append(until(plan, events, tied))
        names = [line.trial for line in events if isinstance(line, TrialStarted)]
        begun.append(names.index(next(iter(winner))) + 1)
    shares = [(steps or total) / total for steps in found["best"]]
    return {
        "way": way,
        "reached": round(mean(steps is not None for steps in found["best"]), 3),
        "mean": round(mean(shares), 4),
        "median": round(median(shares), 4),
        "trainings": round(median(begun)),
        "tied": round(mean((steps or total) / total for steps in found["tied"]), 4),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--slots", type=int, default=1, help="Trials at a time.")
    parser.add_argument("--ways", default="random,asha,tpe,ours", help=", ".join(WAYS))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    spec, lines = complete(read_spec(GRID), recorded())
    rows = [measure(way, spec, lines, given.repetitions, given.slots) for way in given.ways.split(",")]
    ours = rows[-1]
    if given.json:
        ratio = round(1 / ours["mean"], 2)
        print(json.dumps({"name": "search", "device": "simulated", "ratio": ratio, "bar": BAR, "details": rows}))
        return
    print("  ".join(f"{name:>14}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>14}" for value in row.values()))
    print(f"shares of the whole grid's {sum(line['steps'] for line in lines.values()):,} steps; {len(lines)} trainings")


if __name__ == "__main__":
    main()
