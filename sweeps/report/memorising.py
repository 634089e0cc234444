"""The report's paragraph on what the best model has learnt by heart."""

from statistics import mean

from pipelines.scoring.metrics.registry import METRICS
from sweeps.report.figures import SweepData
from sweeps.report.svg import figure
from sweeps.storage.events import CellScored
from sweeps.storage.ledger import only

NOT_LOOKED_FOR = (
    "Whether images were learnt by heart was not looked for: the distance is to the training images themselves. "
    "With data: {holdout: 0.1}, a sweep keeps a tenth of them out of training and compares."
)


def memorising(data: SweepData, key: str) -> str:
    """Say what the best cell's samples tell of learning by heart, or that it was not looked for.

    key: of the best cell. The text is empty while nothing of data with a holdout has been scored.
    """
    trials = data.scored[0].trials if data.scored else []
    cells = [cell.more for cell in only(data.events, CellScored) if cell.trial in trials and cell.key == key]
    means = {kind.name: _mean([cell.get(kind.name) for cell in cells]) for kind in METRICS if kind.needs_holdout}
    distance, gap, nearer = (means[name] for name in ("frechet_held_out", "frechet_gap", "nearer_to_training"))
    if distance is None or gap is None or nearer is None:
        is_open = not data.scored and any(trial.recipe.data.holdout for trial in data.plan.trials)
        return "" if is_open else NOT_LOOKED_FOR
    error = _mean([cell.get("frechet_gap_std") for cell in cells])
    return (
        "The best cell's samples, beside images that the training did not see: their distance to those is "
        f"{figure(distance)}, {figure(abs(gap))}{'' if error is None else f' ± {figure(error)}'} "
        f"{'more' if gap > 0 else 'less'} than to as many training images (standard error, over which those are; "
        f"nothing learnt by heart: 0), and {nearer:.0%} are nearer to a training image than unseen images are "
        "(as unseen images: 50 %; copies: 100 %)."
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None
