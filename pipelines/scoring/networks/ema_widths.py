"""The denoisers of a run's EMA widths."""

import copy
from collections.abc import Iterator
from pathlib import Path

from mpdit.diffusion.denoiser import Denoiser
from mpdit.run_folder import EMA, RAW_WEIGHTS, is_bundle, load, read_weights, set_weights
from mpdit.training.ema import reconstruct
from pipelines.scoring.cell import Cell


def by_sigma_rel(run: Path, cells: list[Cell], step: int | None = None) -> Iterator[tuple[Denoiser, list[Cell]]]:
    """The denoiser of each EMA width with its cells; a run's snapshots are read once for all of them.

    step: the snapshot whose EMAs they are; None: the last one.
    """
    sigma_rels = list(dict.fromkeys(cell.sigma_rel for cell in cells))
    for sigma_rel, denoiser in zip(sigma_rels, denoisers(run, sigma_rels, step), strict=True):
        yield denoiser, [cell for cell in cells if cell.sigma_rel == sigma_rel]


def denoisers(run: Path, sigma_rels: list[float], step: int | None = None) -> Iterator[Denoiser]:
    """The denoiser of each EMA width at a step; None: the last one. Raises InputError for what cannot be had."""
    if is_bundle(run):
        yield from (load(run, sigma_rel)[0] for sigma_rel in sigma_rels)
        return
    raw, last = read_weights(run / EMA / RAW_WEIGHTS)
    averaged = [sigma_rel for sigma_rel in sigma_rels if sigma_rel]
    emas = dict(zip(averaged, reconstruct(run / EMA, averaged, step or last), strict=True)) if averaged else {}
    for sigma_rel in sigma_rels:
        denoiser = copy.deepcopy(raw)
        if sigma_rel:
            set_weights(denoiser, emas.pop(sigma_rel))
        yield denoiser
