"""A training that begins where a shorter one of the same recipe has ended, and takes only the steps that are new.

Its folder gets the shorter one's state, as hard links where the file system has them: both folders stay whole, and
neither needs the other. What it computes is what it would have computed from its first step on, to the bit.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from mpdit.run_folder import EMA, RECIPE
from mpdit.training.cadence import kept_snapshots
from mpdit.training.ema import snapshot_path
from pipelines.recipe import Recipe
from pipelines.training import checkpoint
from pipelines.training.training_folder import CHECKPOINTS, CODE, LOG, log_to, read_recipe
from pipelines.yaml_file import write_yaml

BEGINNING = "continues.json"

log = logging.getLogger(__name__)


def continue_shorter(recipe: Recipe, folder: Path, shorter: Sequence[Path]) -> None:
    """Give a training that has no checkpoint yet the newest one of shorter trainings, where they have kept one.

    Args:
        recipe: what the folder is to train.
        folder: the training's.
        shorter: folders of trainings of the same recipe but for fewer steps; any of them may be gone.
    """
    if not recipe.can_go_on or checkpoint.steps(folder / CHECKPOINTS):
        return
    found = [
        (step, other) for other in shorter for step in checkpoint.steps(other / CHECKPOINTS) if step < recipe.steps
    ]
    for step, other in sorted(found, reverse=True):
        if not checkpoint.is_sound(checkpoint.path_of(other / CHECKPOINTS, step)):
            continue
        try:
            _take_over(recipe, folder, other, step)
        except FileNotFoundError:  # removed meanwhile
            continue
        with log_to(folder / LOG):
            log.info("begins at step %d of the shorter training %s", step, other.name)
        return


def steps_taken(folder: Path, steps: int) -> int:
    """How many of its steps a training took itself; the others are those of a shorter training."""
    try:
        return steps - int(json.loads((folder / BEGINNING).read_text())["step"])
    except (OSError, ValueError, KeyError):
        return steps


def _take_over(recipe: Recipe, folder: Path, other: Path, step: int) -> None:
    """Link a shorter training's state at a step into this folder; the checkpoint, which makes it count, comes last."""
    settled = recipe.model_copy(update={"runtime": read_recipe(other).runtime})
    folder.mkdir(parents=True, exist_ok=True)
    snapshots = [snapshot_path(other / EMA, at) for at in kept_snapshots(step)]
    _link([path for path in snapshots if path.exists()], folder / EMA)
    if (other / CODE).exists():
        shutil.copyfile(other / CODE, folder / CODE)
    (folder / BEGINNING).write_text(json.dumps({"training": other.name, "step": step}) + "\n")
    write_yaml(folder / RECIPE, settled.model_dump())
    final = checkpoint.path_of(folder / CHECKPOINTS, step)
    partial = final.with_name(f"partial-{step:08d}")
    _link(checkpoint.path_of(other / CHECKPOINTS, step).iterdir(), partial)
    partial.rename(final)


def _link(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        target = folder / path.name
        target.unlink(missing_ok=True)  # of an attempt that was killed
        try:
            os.link(path, target)
        except FileNotFoundError:
            raise
        except OSError:  # a file system without hard links
            shutil.copyfile(path, target)
