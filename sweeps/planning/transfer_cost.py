"""Estimate what tuning a small model saves: the sweep and one large training, against the sweep at the large size."""

from dataclasses import dataclass
from statistics import median
from typing import Any

from mpdit.model.transformer import forward_flop
from pipelines.identity import trial_id
from pipelines.recipe import Recipe
from pipelines.transfer import transfer
from sweeps.planning.known_work import timed
from sweeps.planning.plan import Plan
from sweeps.storage.layout import Storage

FLOP_PER_WEIGHT = 6  # a multiplication and an addition, forward once and backward twice
PASSES = 3  # in units of the forward pass: the backward pass takes two


@dataclass(frozen=True)
class Cost:
    """The cost of some trainings: arithmetic, and hours one after another where this storage has timed any."""

    trainings: int
    petaflop: float
    hours: float | None

    def as_dict(self) -> dict[str, Any]:
        """As `plan --json` shows it."""
        return {"trainings": self.trainings, "petaflop": float(f"{self.petaflop:.4g}"), "hours": self.hours}


@dataclass(frozen=True)
class TransferCost:
    """The cost of this sweep and of one training at the target size, and of the same sweep at the target size."""

    target: str
    sweep: Cost
    training: Cost
    sweep_at_target: Cost
    warnings: list[str]

    @property
    def saved(self) -> float:
        """The saved fraction of the sweep at the target size; negative where tuning small costs more."""
        return 1 - (self.sweep.petaflop + self.training.petaflop) / self.sweep_at_target.petaflop

    def as_dict(self) -> dict[str, Any]:
        """As `plan --json` shows it."""
        costs = {name: getattr(self, name).as_dict() for name in ("sweep", "training", "sweep_at_target")}
        return {"target": self.target, **costs, "saved": round(self.saved, 4), "warnings": self.warnings}


def transfer_cost(plan: Plan, storage: Storage, size: str | None, patch: int | None) -> TransferCost:
    """Estimate what a transfer to a size or patch would cost and save. Raises InputError where it is impossible."""
    transfers = [transfer(trial.recipe, size, patch) for trial in plan.trials]
    targets = list({trial_id(one.target): one.target for one in transfers}.values())
    dearest = max(targets, key=_petaflop)
    paces = [end.training_pace for end in timed(storage) if end.training_pace is not None]
    pace = median(paces) if paces else None
    tokens = _tokens(plan.trials[0].recipe)
    warnings = list(dict.fromkeys(warning for one in transfers for warning in one.warnings))

    def cost(recipes: list[Recipe]) -> Cost:
        total = sum(map(_petaflop, recipes))
        hours = None if pace is None else round(pace * total * 1e15 / FLOP_PER_WEIGHT / tokens / 3600, 4)
        return Cost(len(recipes), total, hours)

    return TransferCost(
        transfers[0].name, cost([t.recipe for t in plan.trials]), cost([dearest]), cost(targets), warnings
    )


def _tokens(recipe: Recipe) -> int:
    return (recipe.facts.resolution // recipe.model.patch) ** 2


def _petaflop(recipe: Recipe) -> float:
    """The floating-point operations of one training, in 10¹⁵."""
    return PASSES * forward_flop(recipe.architecture(recipe.facts)) * recipe.steps * recipe.batch / 1e15
