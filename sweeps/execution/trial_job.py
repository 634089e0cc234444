"""What a worker is sent: all that it needs to know of one trial."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from sweeps.storage.open_storage import local_copy


@dataclass(frozen=True)
class Rungs:
    """Where a trial is scored while it trains.

    Args:
        fractions: of its training.
        evaluation: how it is scored there.
        sigma_rels: the EMA widths of the sweep.
    """

    fractions: Sequence[float]
    evaluation: Evaluation
    sigma_rels: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """One trial, as a worker trains and scores it.

    It is pickled as plain values, from which the worker builds recipe and evaluations with its own registries, so that
    kinds are the worker's and plug-ins are loaded there.

    Args:
        trial: its id.
        recipe: what to train.
        folder: where the trial is.
        threads: CPU threads of each worker.
        shorter: the trials of the same training with fewer steps, which it may continue.
        cells: what to score after the training.
        keep: whether the cells' features stay on disk for a later round of scoring.
        compiled: whether the network is compiled for scoring.
        rungs: where the trial is scored while it trains, if it is.
        bucket: the address of the bucket that `folder` is a copy of, if it is one.
        workers: how many train the trial together.
        gpus: of each worker.
        scratch: a place that every node sees, for what Ray writes and nobody reads.
    """

    trial: str
    recipe: Recipe
    folder: Path
    threads: int
    shorter: Sequence[str] = ()
    cells: Sequence[Cell] = ()
    keep: bool = False
    compiled: bool = False
    rungs: Rungs | None = None
    bucket: str | None = None
    workers: int = 1
    gpus: float = 0.0
    scratch: str = ""

    def on_this_machine(self) -> "TrialJob":
        """The job with the folder of this machine: of a trial in a bucket, each machine has its own copy."""
        if self.bucket is None:
            return self
        return replace(self, folder=local_copy(self.bucket) / "trials" / self.trial)

    def __reduce__(self) -> tuple[Any, ...]:
        plain: dict[str, Any] = dict(vars(self))
        plain["recipe"] = self.recipe.model_dump()
        plain["cells"] = [(cell.sigma_rel, cell.evaluation.model_dump()) for cell in self.cells]
        if self.rungs:
            plain["rungs"] = (self.rungs.fractions, self.rungs.evaluation.model_dump(), self.rungs.sigma_rels)
        return _from_plain, (plain,)


def _from_plain(plain: dict[str, Any]) -> TrialJob:
    fields = dict(plain)
    fields["recipe"] = Recipe(**plain["recipe"])
    fields["cells"] = [Cell(sigma_rel, Evaluation(**settings)) for sigma_rel, settings in plain["cells"]]
    if plain["rungs"]:
        fractions, settings, sigma_rels = plain["rungs"]
        fields["rungs"] = Rungs(fractions, Evaluation(**settings), sigma_rels)
    return TrialJob(**fields)
