"""What a plan's trainings will take, from a few steps of some of them; as many at a time as the sweep will run."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from pipelines.training.timing import time_training
from sweeps.planning.plan import Plan, Trial, scoring_work, training_work
from sweeps.storage.events import TrialEnded
from sweeps.storage.trial_status import TrialStatus

MODELS = 4  # different networks that are measured, at most


def measure(plan: Plan, trials: list[Trial], slots: int) -> list[TrialEnded]:
    """A `trial_ended` event, such as a timed trial leaves, for each training that is measured; nothing is recorded."""
    if not trials:
        return []
    import torch

    slots = 1 if torch.cuda.is_available() else slots  # the processes would share the first GPU
    chosen = _different(trials)
    tasks = [chosen[at % len(chosen)] for at in range(max(len(chosen), slots))]
    with ProcessPoolExecutor(min(slots, len(tasks)), mp_context=get_context("spawn")) as pool:
        return list(pool.map(_measure, [plan] * len(tasks), tasks, [time.time()] * len(tasks)))


def _different(trials: list[Trial]) -> list[Trial]:
    """One trial of each network, spread over all of them where there are many."""
    known: dict[str, Trial] = {}
    for trial in trials:
        known.setdefault(repr((trial.recipe.model, trial.recipe.batch)), trial)
    every = list(known.values())
    return every if len(every) <= MODELS else [every[at * (len(every) - 1) // (MODELS - 1)] for at in range(MODELS)]


def _measure(plan: Plan, trial: Trial, asked_at: float) -> TrialEnded:
    waited = time.time() - asked_at
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    cell = plan.cells[0].cell
    found = time_training(trial.recipe, cell.evaluation, plan.spec.resources.cpus_per_trial)
    parameters = trial.parameters
    return TrialEnded(
        trial.id,
        TrialStatus.COMPLETED,
        training_seconds=found.training,
        training_work=training_work(trial.recipe, parameters),
        scoring_seconds=found.scoring(cell.evaluation.samples),
        scoring_work=scoring_work(cell, parameters),
        start_seconds=waited + found.start,
        runtime={"device": found.device},
    )
