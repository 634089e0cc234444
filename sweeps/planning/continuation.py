"""Trials that are the same training at several lengths: the longer ones continue the shorter ones."""

from collections.abc import Collection, Iterable
from pathlib import Path

from pipelines.identity import trial_id
from pipelines.training.checkpoint import STATE, path_of
from pipelines.training.training_folder import CHECKPOINTS
from sweeps.planning.plan import Plan, Trial
from sweeps.spec.space import STEPS
from sweeps.storage.layout import Storage


def shorter_trials(trial: Trial, plan: Plan) -> list[Trial]:
    """The trials of a plan that are this training with fewer steps, the longest first."""
    if STEPS not in plan.spec.axes or trial.at_any_length is None:
        return []
    fewer = [one for one in plan.trials if one.recipe.steps < trial.recipe.steps]
    same = [one for one in fewer if one.at_any_length == trial.at_any_length]
    return sorted(same, key=lambda one: -one.recipe.steps)


def continued_trials(trial: Trial, lengths: Iterable[int], storage: Storage) -> dict[int, str]:
    """The trials of a storage that have kept the state of this training at fewer steps: {steps: id}, longest first.

    lengths: the numbers of steps that trainings of the storage have.
    """
    if trial.at_any_length is None:
        return {}
    fewer = sorted({steps for steps in lengths if steps < trial.recipe.steps}, reverse=True)
    ids = {steps: trial_id(trial.recipe.model_copy(update={"steps": steps})) for steps in fewer}
    return {steps: one for steps, one in ids.items() if storage.holds(_state(storage, one, steps))}


def lengths_said(plan: Plan) -> str | None:
    """Say what several lengths of each training cost, or would cost with a schedule in steps; None where there is one.

    What the storage has of them already is not looked at.
    """
    if STEPS not in plan.spec.axes or len({trial.recipe.steps for trial in plan.trials}) == 1:
        return None
    total = sum(trial.recipe.steps for trial in plan.trials)
    if all(trial.at_any_length is None for trial in plan.trials):
        return (
            f"each length is a training of its own ({total:,} steps): warmup and decay_from are shares of the run;\n"
            "as numbers of steps (above 1), and with no cosine, the longer ones would continue the shorter ones"
        )
    shorter = (shorter_trials(trial, plan) for trial in plan.trials)
    taken = total - sum(found[0].recipe.steps for found in shorter if found)
    return f"longer trainings continue the shorter ones: {taken:,} steps in place of {total:,}"


def _state(storage: Storage, trial: str, steps: int) -> Path:
    return path_of(storage.trial(trial) / CHECKPOINTS, steps) / STATE


def steps_to_train(plan: Plan, lengths: Collection[int], storage: Storage) -> dict[str, int]:
    """How many steps each of these trials will take, all of which are yet to be trained: those that are new."""
    steps = {trial.id: trial.recipe.steps for trial in plan.trials}
    for trial in plan.trials:
        here = [other.recipe.steps for other in shorter_trials(trial, plan)]
        steps[trial.id] -= max([*here, *continued_trials(trial, lengths, storage)], default=0)
    return steps
