"""Ray Tune runs trials; what they report goes to the recorder."""

import signal
from dataclasses import dataclass
from typing import Any

from pipelines.cell import Cell
from pipelines.evaluation import compiling_pays
from sweeps.cluster import gpus_per_trial, temporary_folder
from sweeps.ledger import event
from sweeps.plan import Plan, Trial
from sweeps.recorder import Recorder, cut_off
from sweeps.storage import Storage
from sweeps.trial import run_in_worker

RETRIES = 2  # of a trial whose worker died; errors inside a trial are outcomes and are not retried


@dataclass(frozen=True)
class Work:
    """Trials to bring to their end, and the cells that each is to score."""

    plan: Plan
    storage: Storage
    trials: list[Trial]
    cells: dict[str, list[Cell]]
    concurrent: int
    fail_fast: bool


def _job(work: Work, trial: Trial, gpus: float) -> dict[str, Any]:
    """All that a worker needs to know of one trial, in plain values."""
    recipe, plan, cells = trial.recipe, work.plan, work.cells.get(trial.id, [])
    if not gpus and recipe.runtime.device == "auto":  # a worker that asked for no GPU may still see one
        recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"device": "cpu"})})
    return {
        "trial": trial.id,
        "recipe": recipe.model_dump(),
        "folder": str(work.storage.trial(trial.id)),
        "cells": [(cell.sigma_rel, cell.evaluation.model_dump()) for cell in cells],
        "keep": any(cell.evaluation.samples < plan.spec.evaluation.samples for cell in cells),
        "compiled": compiling_pays(planned.cell for planned in plan.cells),
        "threads": plan.spec.resources.cpus_per_trial,
    }


def tune_trials(work: Work, recorder: Recorder) -> None:
    """Let Ray Tune run the trials; returns when they have ended or the user has interrupted them."""
    import ray
    from ray import tune

    gpus = gpus_per_trial(work.plan.spec, ray.cluster_resources().get("GPU", 0.0))
    jobs = [_job(work, trial, gpus) for trial in work.trials]
    resources = {"CPU": work.plan.spec.resources.cpus_per_trial, "GPU": gpus}

    class Record(tune.Callback):
        """Tune's events, as ledger lines."""

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            recorder.record(event("trial_started", trial.config["job"]["trial"]))

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            line = result["event"]
            recorder.record(line)
            if work.fail_fast and line["event"] == "trial_ended" and line["outcome"] in ("failed", "out_of_memory"):
                signal.raise_signal(signal.SIGINT)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            recorder.record(cut_off(trial.config["job"]["trial"], "failed", f"its worker died {RETRIES + 1} times"))

    tuner = tune.Tuner(
        tune.with_resources(run_in_worker, resources),
        param_space={"job": tune.grid_search(jobs)},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=work.concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(temporary_folder()),
            callbacks=[Record()],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )
    tuner.fit()
