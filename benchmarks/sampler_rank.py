"""Which cheap sampler may stand in for 250 steps of DDPM? `python benchmarks/sampler_rank.py STORAGE [SWEEP …]`.

Over the trained trials of some sweeps, each at a few EMA widths: every sampler draws from the same noise, and the rank
correlation (Spearman) of its Fréchet distances with those of 250-step DDPM is shown with its 95 % interval (Bonett and
Wright 2000), the mean ratio of the distances, and whether both have the same winner. What is scored is kept in
STORAGE/sampler_rank.jsonl: stopped and started again, it goes on. For larger data: the same command on that storage,
with --samples 10000 and the widths of interest.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import ScoringOptions, compiling_pays, evaluate
from pipelines.training.training_folder import is_trained, read_recipe
from sweeps.planning.plan import make_plan
from sweeps.spec.reading import read_spec
from sweeps.storage.layout import Storage

REFERENCE = "ddpm:250"
SAMPLERS = "ddpm:50,ddim:50,ddim:25,ddim:10,dpm++2m:20,dpm++2m:12,dpm++2m:8,heun:18,heun:8"


def cell_of(sampler: str, width: float, samples: int) -> Cell:
    """`ddim:25` at one width, as a cell."""
    name, steps = sampler.rsplit(":", 1)
    return Cell(width, Evaluation(samples=samples, sampler=name, steps=int(steps)))


def trained(storage: Storage, names: list[str]) -> list[str]:
    """The ids of the sweeps' trials that are trained to their end."""
    plans = [make_plan(read_spec(storage.spec(storage.find_sweep(name)))) for name in names or storage.sweep_names()]
    ids = dict.fromkeys(trial.id for plan in plans for trial in plan.trials)
    return [trial for trial in ids if is_trained(storage.trial(trial))]


def score(storage: Storage, trials: list[str], samplers: list[str], given: argparse.Namespace) -> dict[Any, float]:
    """(trial, width, sampler) → distance, from the file where it is known."""
    path = storage.root / "sampler_rank.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known = {(line["trial"], line["cell"]): line["value"] for line in lines}
    widths = [float(width) for width in given.ema.split(",")]
    cells = {(width, sampler): cell_of(sampler, width, given.samples) for width in widths for sampler in samplers}
    for number, trial in enumerate(trials, 1):
        missing = [cell for cell in cells.values() if (trial, cell.key) not in known]
        recipe = read_recipe(storage.trial(trial))
        recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"threads": given.threads})})

        def keep(result: dict[str, Any], trial: str = trial) -> None:
            known[trial, result["cell"]] = result["value"]
            with path.open("a") as file:
                file.write(json.dumps({"trial": trial, **result}) + "\n")

        evaluate(storage.trial(trial), recipe, missing, keep, ScoringOptions(compiled=compiling_pays(cells.values())))
        print(f"{number} of {len(trials)} trials scored", file=sys.stderr, flush=True)
    return {(trial, *at): known[trial, cell.key] for trial in trials for at, cell in cells.items()}


def compare(distances: dict[Any, float], samplers: list[str]) -> list[dict[str, Any]]:
    """One row a sampler: its correlation with the reference over all (trial, width) that both could score."""
    from scipy.stats import spearmanr

    points = [at for at, value in distances.items() if at[2] == REFERENCE and value is not None]
    rows = []
    for sampler in samplers:
        both = [(distances[point], distances[*point[:2], sampler]) for point in points]
        both = [pair for pair in both if pair[1] is not None]
        reference, cheap = zip(*both, strict=True)
        rho = float(spearmanr(reference, cheap).statistic)
        spread = 1.96 * math.sqrt((1 + rho**2 / 2) / (len(both) - 3))
        middle = math.atanh(min(max(rho, -0.9999), 0.9999))
        ratio = math.exp(sum(math.log(b / a) for a, b in both) / len(both))
        rows.append(
            {
                "sampler": sampler,
                "nfe": cell_of(sampler, 0.1, 10).evaluation.network_evaluations,
                "rho": round(rho, 3),
                "low": round(math.tanh(middle - spread), 3),
                "high": round(math.tanh(middle + spread), 3),
                "ratio": round(ratio, 3),
                "same winner": reference.index(min(reference)) == cheap.index(min(cheap)),
                "points": len(both),
            }
        )
    return sorted(rows, key=lambda row: -row["rho"])


def main() -> None:
    """Score what is missing, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("storage", type=Path)
    parser.add_argument("sweeps", nargs="*")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--ema", default="0,0.05,0.15")
    parser.add_argument("--samplers", default=SAMPLERS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    storage, samplers = Storage(given.storage), given.samplers.split(",")
    trials = trained(storage, given.sweeps)
    rows = compare(score(storage, trials, [REFERENCE, *samplers], given), samplers)
    best = max(rows, key=lambda row: row["low"])
    ratio = round(250 / best["nfe"], 2)  # how much cheaper the safest stand-in is
    if given.json:
        print(json.dumps({"name": "sampler_rank", "device": "cpu", "ratio": ratio, "bar": 1.0, "details": rows}))
        return
    print("  ".join(f"{name:>11}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>11}" for value in row.values()))
    print(f"reference: {REFERENCE}, {given.samples} samples, {len(trials)} trials at σ_rel {given.ema}")


if __name__ == "__main__":
    main()
