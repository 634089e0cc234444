"""The winner's curse: the first cells are scored again on fresh noise, which did not choose them."""

from pipelines.scoring.cell import Cell
from sweeps.planning.plan import Plan, PlannedCell
from sweeps.spec.model import SweepSpec
from sweeps.storage.events import CellScored


def will_confirm(plan: Plan) -> bool:
    """Whether the first cells are to be scored again at the end: where there is one objective.

    A sweep that was begun before there was a confirmation (its classes come in turn) ends as it would have.
    """
    is_older = any(planned.cell.evaluation.classes == "in_turn" for planned in plan.cells)
    return plan.spec.confirm.best > 0 and len(plan.spec.objective) == 1 and not is_older


def confirms(plan: Plan) -> bool:
    """Whether they are scored again now: a search has no more points to suggest."""
    return will_confirm(plan) and not plan.open


def confirming_cell(plan: Plan, planned: PlannedCell) -> Cell:
    """The same cell with the evaluation's next seed, and with the samples that `confirm` asks for."""
    evaluation = planned.cell.evaluation
    changes = {"seed": evaluation.seed + 1, "samples": plan.spec.confirm.samples or evaluation.samples}
    return Cell(planned.cell.sigma_rel, evaluation.model_copy(update=changes))


def is_of_fresh_noise(spec: SweepSpec, cell: CellScored) -> bool:
    """Whether a cell was scored to confirm, on another noise than the evaluation's."""
    return bool(cell.params.get("evaluation.seed", spec.evaluation.seed) != spec.evaluation.seed)


def confirming_samples(plan: Plan) -> int:
    """How many samples that draws."""
    if plan.spec.confirm.best == 0 or len(plan.spec.objective) > 1:
        return 0
    points = len({repr({**trial.params, "seed": None}) for trial in plan.trials})
    cells = min(plan.spec.confirm.best, points * len(plan.cells))
    return cells * len(plan.spec.seeds) * (plan.spec.confirm.samples or plan.spec.evaluation.samples)
