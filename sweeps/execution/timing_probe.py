"""Time a few steps of a plan's trainings, as many at a time as the sweep will run, to estimate its cost."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from pipelines.training.timing import time_training
from sweeps.planning.plan import Plan, Trial, scoring_work, training_work
from sweeps.storage.events import TrialEnded
from sweeps.storage.trial_status import TrialStatus

MODELS = 4  # the most networks that are timed


def measure(plan: Plan, trials: list[Trial], slots: int) -> list[TrialEnded]:
    """Time some trainings: the event that each would end with. Nothing is recorded."""
    if not trials:
        return []
    import torch

    slots = 1 if torch.cuda.is_available() else slots  # the processes would share the first GPU
    chosen = _different(trials)
    tasks = [chosen[at % len(chosen)] for at in range(max(len(chosen), slots))]
    with ProcessPoolExecutor(min(slots, len(tasks)), mp_context=get_context("spawn")) as pool:
        return list(pool.map(_measure, [plan] * len(tasks), tasks, [time.time()] * len(tasks)))


def _different(trials: list[Trial]) -> list[Trial]:
    """One trial for each network; where there are many, some that are spread over all."""
    known: dict[str, Trial] = {}
    for trial in trials:
        known.setdefault(repr((trial.recipe.model, trial.recipe.batch)), trial)
    every = list(known.values())
    return every if len(every) <= MODELS else [every[at * (len(every) - 1) // (MODELS - 1)] for at in range(MODELS)]


def _measure(plan: Plan, trial: Trial, asked_at: float) -> TrialEnded:
    waited = time.time() - asked_at
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    cell = plan.cells[0].cell
    times = time_training(trial.recipe, cell.evaluation, plan.spec.resources.cpus_per_trial)
    parameters = trial.parameters
    return TrialEnded(
        trial.id,
        TrialStatus.COMPLETED,
        training_seconds=times.training,
        training_work=training_work(trial.recipe, parameters),
        scoring_seconds=times.scoring(cell.evaluation.samples),
        scoring_work=scoring_work(cell, parameters),
        start_seconds=waited + times.start,
        runtime={"device": times.device},
    )
