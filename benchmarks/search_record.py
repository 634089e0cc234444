"""Train and score what benchmarks/search.py and advice.py replay: `python benchmarks/search_record.py [--limit N]`.

Each trial of search_grid.yaml and seeds_grid.yaml is really trained, in legs: at each of `LENGTHS` all cells are
scored, then the training goes on from there. A line of search_grid.jsonl keeps the scores. What is recorded is not
trained again.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pipelines.scoring.evaluation import evaluate
from pipelines.training.continuation import continue_shorter
from pipelines.training.measurements import Diverged
from pipelines.training.trainer import train
from pipelines.training.training_folder import training_seconds
from sweeps.planning.plan import Plan, Trial, make_plan
from sweeps.spec.reading import read_spec

HERE = Path(__file__).parent
GRID, SEEDS, RECORDED = (HERE / name for name in ("search_grid.yaml", "seeds_grid.yaml", "search_grid.jsonl"))
LENGTHS = (10, 30, 90, 270)  # steps
KEPT = ("value", "stderr", "left_out", "magnitude_drift")  # of each cell
DIGITS = 4  # significant, of what is kept


def short(value: Any) -> Any:
    """Numbers with as many digits as are kept."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [short(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def record(plan: Plan, trial: Trial) -> dict[str, Any]:
    """Train one trial on one thread, score it at each length, and forget its weights."""
    kept: dict[str, Any] = {"params": trial.params, "lengths": {}, "diverged_at": None}
    with tempfile.TemporaryDirectory() as place:
        folders = {steps: Path(place) / str(steps) for steps in LENGTHS}
        seconds = 0.0
        for steps, folder in folders.items():
            recipe = trial.recipe.model_copy(update={"steps": steps})
            continue_shorter(recipe, folder, list(folders.values()))
            try:
                settled = train(recipe, folder, lambda line: None, threads=1)
            except Diverged as divergence:
                return kept | {"diverged_at": divergence.step}
            scored: list[dict[str, Any]] = []
            evaluate(folder, settled, [planned.cell for planned in plan.cells], scored.append)
            kept["lengths"][steps] = [{name: short(cell[name]) for name in KEPT} for cell in scored]
            seconds = training_seconds(folder)
    return kept | {"training_seconds": short(seconds)}


def key(params: dict[str, Any]) -> str:
    """Names a training, whatever its number of steps."""
    return json.dumps({name: value for name, value in params.items() if name != "steps"}, sort_keys=True)


def recorded() -> dict[str, dict[str, Any]]:
    """What is recorded, by the training."""
    lines = RECORDED.read_text().splitlines() if RECORDED.exists() else []
    return {key(line["params"]): line for line in map(json.loads, lines)}


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=int, default=None, help="Trials to record now.")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    plans = [make_plan(read_spec(grid)) for grid in (GRID, SEEDS)]
    known = recorded()
    every = [trial for plan in plans for trial in plan.trials]
    missing = [trial for trial in every if key(trial.params) not in known][: given.limit]
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        for at, found in enumerate(pool.map(partial(record, plans[0]), missing), start=1):
            with RECORDED.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(f"{at}/{len(missing)} {key(found['params'])}", flush=True)


if __name__ == "__main__":
    main()
