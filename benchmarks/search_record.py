"""Train and score the grid that benchmarks/search.py replays: `python benchmarks/search_record.py [--limit N]`.

Each trial of benchmarks/search_grid.yaml is really trained; a line of benchmarks/search_grid.jsonl keeps its scores at
the rungs (few samples, three widths), its cells in full and its seconds. What is recorded is not trained again.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pipelines.scoring.cell import Evaluation
from pipelines.scoring.evaluation import evaluate
from pipelines.scoring.rungs import rung_sigma_rels, rung_steps, score_rung
from pipelines.training.measurements import Diverged
from pipelines.training.trainer import train
from pipelines.training.training_folder import training_seconds
from sweeps.planning.plan import Plan, Trial, make_plan
from sweeps.spec.reading import read_spec

HERE = Path(__file__).parent
GRID, RECORDED = HERE / "search_grid.yaml", HERE / "search_grid.jsonl"
SHARES = (1 / 8, 1 / 4, 1 / 2)
RUNG = Evaluation(samples=250, sampler="dpm++2m", steps=5)
DIGITS = 4  # significant, of what is kept


def short(value: Any) -> Any:
    """Numbers with as many digits as are kept."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [short(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def record(plan: Plan, trial: Trial) -> dict[str, Any]:
    """Train one trial on one thread, score it, and forget its weights."""
    kept: dict[str, Any] = {"trial": trial.id, "params": trial.params, "steps": trial.recipe.steps}
    with tempfile.TemporaryDirectory() as folder:
        run, scored = Path(folder), []
        try:
            settled = train(trial.recipe, run, lambda line: None, threads=1)
        except Diverged as divergence:
            return kept | {"outcome": "diverged", "step": divergence.step, "rungs": [], "cells": []}
        kept |= {"outcome": "completed", "training_seconds": training_seconds(run), "rungs": [], "cells": scored}
        widths = [planned.cell.sigma_rel for planned in plan.cells]
        for share, step in zip(SHARES, rung_steps(trial.recipe.steps, SHARES), strict=True):
            began = time.monotonic()
            results = score_rung(run, settled, step, rung_sigma_rels(step, widths), RUNG)
            fields = ("sigma_rel", "value", "left_out", "magnitude_drift")
            rows = [{name: short(result[name]) for name in fields} for result in results]
            seconds = short(time.monotonic() - began)
            kept["rungs"].append({"share": share, "step": step, "seconds": seconds, "widths": rows})
        evaluate(run, settled, [planned.cell for planned in plan.cells], scored.append)
        fields = ("value", "stderr", "left_out", "magnitude_drift", "scoring_seconds")
        kept["cells"] = [{name: short(cell[name]) for name in fields} for cell in scored]
    return kept


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=int, default=None, help="Trials to record now.")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    plan = make_plan(read_spec(GRID))
    known = {json.loads(line)["trial"] for line in RECORDED.read_text().splitlines()} if RECORDED.exists() else set()
    missing = [trial for trial in plan.trials if trial.id not in known][: given.limit]
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        for found in pool.map(partial(record, plan), missing):
            with RECORDED.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(f"{found['trial']} {found['params']} {found['outcome']}", flush=True)


if __name__ == "__main__":
    main()
