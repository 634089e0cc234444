"""What a cell asks of the networks of its run, found and checked without their weights."""

from collections.abc import Sequence
from typing import NamedTuple

from mpdit.errors import InputError, input_error
from mpdit.training.ema import TRACKED_SIGMA_RELS, fit_snapshots
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation


class GuideWeights(NamedTuple):
    """Which weights of a run guide: the step of a snapshot, and an EMA width there; 0: the raw weights."""

    step: int
    sigma_rel: float


def check_networks(recipe: Recipe, evaluation: Evaluation) -> None:
    """Raise InputError for a guidance rule that is not the objective's, or blocks that cannot be left out."""
    _check_rule(recipe, evaluation)
    depth = recipe.model.shape[0]
    left_out = evaluation.blocks.left_out(depth, lambda: [0.0] * depth)
    if left_out and recipe.model.skips:
        raise input_error(
            "long skips pair the blocks of a network, so that none can be left out",
            given=f"evaluation.blocks: {evaluation.blocks.name}, recipe.model.skips: true",
            hint="evaluation: {blocks: all}",
        )


def _check_rule(recipe: Recipe, evaluation: Evaluation) -> None:
    rule, objective = evaluation.guidance_rule, recipe.objective.name
    if rule.objectives is not None and objective not in rule.objectives:
        raise input_error(
            f"the guidance rule {rule.name!r} is defined for the objective {', '.join(rule.objectives)} only",
            given=f"evaluation.guidance_rule: {rule.name}, recipe.objective: {objective}",
            hint="evaluation: {guidance_rule: cfg}",
        )


def guide_weights(cell: Cell, snapshots: Sequence[int]) -> GuideWeights | None:
    """The weights that guide a cell; None where no second network does.

    snapshots: the steps that are kept, ascending; the last one is the end of the run. Raises InputError for a step
    after it, and for a width that the snapshots up to the guide's step cannot give.
    """
    if not cell.evaluation.has_guide:
        return None
    guide, last = cell.evaluation.guide, snapshots[-1]
    wanted = guide.step * last if guide.step <= 1 else guide.step
    if wanted > last:
        raise input_error(
            "the guide's step comes after the end of its run",
            given=f"evaluation.guide.step: {guide.step}",
            allowed=f"up to {last}, or a share of it, as 0.0625",
        )
    step = min(snapshots, key=lambda kept: abs(kept - wanted))
    sigma_rel = guide.sigma_rel
    if sigma_rel is None:
        sigma_rel = cell.sigma_rel if guide.step == 1 else TRACKED_SIGMA_RELS[-1]
    if sigma_rel == 0 and step < last:
        raise input_error(
            "raw weights are kept of a run's last step only, and its guide is an earlier one",
            given=f"evaluation.guide: {{step: {guide.step}, sigma_rel: 0}}",
            hint="evaluation.guide.sigma_rel: 0.13, or another width",
        )
    if sigma_rel:
        try:
            fit_snapshots(snapshots, step, sigma_rel)
        except InputError as problem:
            raise InputError(f"evaluation.guide at step {step}: {problem}") from None
    return GuideWeights(step, sigma_rel)
