"""The guides of some cells: earlier snapshots and other EMA widths of their run."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mpdit.diffusion.denoiser import Denoiser
from mpdit.errors import input_error
from mpdit.run_folder import EMA, RAW_WEIGHTS, is_bundle, read_weights
from mpdit.training.ema import stored_steps
from pipelines.scoring.cell import Cell
from pipelines.scoring.networks.asked import GuideWeights, guide_weights
from pipelines.scoring.networks.ema_widths import denoisers


class FoundGuide(NamedTuple):
    """A guide, and the weights that it has."""

    denoiser: Denoiser
    weights: GuideWeights


class Guides:
    """The guides of some cells of a run, each read once.

    step: the snapshot that is scored; None: the last one. Raises InputError where a guide cannot be had; a bundle has
    none.
    """

    def __init__(self, run: Path, cells: Iterable[Cell], step: int | None = None) -> None:
        guided = [cell for cell in cells if cell.evaluation.has_guide]
        if guided and is_bundle(run):
            raise input_error(
                f"{run} is a bundle, which holds one network and no snapshots of its training to guide it",
                given=f"evaluation.guide: {guided[0].evaluation.guide.model_dump(exclude_none=True)}",
                hint="score or sample the run that it came from; or guidance=1, or guide={}, classifier-free guidance",
            )
        last = (step or read_weights(run / EMA / RAW_WEIGHTS)[1]) if guided else 0
        snapshots = stored_steps(run / EMA, last) if guided else []
        self._weights = {cell.key: guide_weights(cell, snapshots) for cell in guided}
        wanted: dict[int, list[float]] = {}
        for found in dict.fromkeys(filter(None, self._weights.values())):
            wanted.setdefault(found.step, []).append(found.sigma_rel)
        self._denoisers = {
            GuideWeights(at, sigma_rel): denoiser
            for at, sigma_rels in wanted.items()
            for sigma_rel, denoiser in zip(sigma_rels, denoisers(run, sigma_rels, at), strict=True)
        }

    def of(self, cell: Cell) -> FoundGuide | None:
        """The guide of one of the cells; None where there is none."""
        weights = self._weights.get(cell.key)
        return FoundGuide(self._denoisers[weights], weights) if weights else None
