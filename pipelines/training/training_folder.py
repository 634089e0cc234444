"""The folder of a training: its recipe as the first start settled it, its log, and how far it has come."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mpdit.errors import input_error
from mpdit.run_folder import EMA, RAW_WEIGHTS, RECIPE
from pipelines.identity import trial_id
from pipelines.recipe import Recipe, resolve_runtime
from pipelines.training import checkpoint
from pipelines.training_code import training_code
from pipelines.yaml_file import read_yaml, validate, write_yaml

CHECKPOINTS, LOG, CODE = "checkpoints", "log.txt", "code.json"

log = logging.getLogger(__name__)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file or in a run's or bundle's folder."""
    return validate(Recipe, read_yaml(path / RECIPE if path.is_dir() else path))


def settle_recipe(recipe: Recipe, folder: Path, threads: int | None = None) -> Recipe:
    """Return the recipe as this folder trains it: as its first start settled it, or settled and written now.

    threads: how many to use where the recipe leaves it open. Raises InputError when the folder belongs to another
    training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RECIPE).exists():
        settled = read_recipe(folder)
        _check_same_training(folder, settled, recipe)
        import torch

        if settled.runtime.device != "cuda" or torch.cuda.is_available():
            if recipe.runtime.micro_batch != "auto":  # it changes no result, and may have been chosen since
                settled = _with_micro_batch(settled, recipe.runtime.micro_batch)
            return settled.model_copy(update={"ema": recipe.ema})
        log.warning("the run began on a GPU and continues on a CPU: its result will differ in the last digits")
    settled = resolve_runtime(recipe, threads)
    write_yaml(folder / RECIPE, settled.model_dump())
    return settled


def _check_same_training(folder: Path, settled: Recipe, recipe: Recipe) -> None:
    if trial_id(settled.model_copy(update={"runtime": recipe.runtime})) != trial_id(recipe):
        raise input_error(
            f"{folder} holds another training",
            there=trial_id(settled),
            given=trial_id(recipe),
            hint="choose another --output",
        )


def halve_micro_batch(folder: Path, processes: int = 1) -> int | None:
    """Let this training continue with half a batch at once and return it; None where the recipe itself sets a number.

    processes: how many share the batch.
    """
    settled = read_recipe(folder)
    half = settled.batch // processes // 2
    if settled.runtime.micro_batch != "auto" or not half:
        return None
    write_yaml(folder / RECIPE, _with_micro_batch(settled, half).model_dump())
    return half


def _with_micro_batch(recipe: Recipe, samples: Any) -> Recipe:
    return recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"micro_batch": samples})})


def note_code(folder: Path, recipe: Recipe) -> None:
    """Write down which code trains from here on, and warn where other code has trained up to here."""
    known, today = _codes(folder), training_code(recipe)
    if known[-1:] == [today]:
        return
    if known:
        log.warning("other code (%s) began this training and today's (%s) continues it", known[-1], today)
    (folder / CODE).write_text(json.dumps({"training_code": [*known, today]}) + "\n")


def read_code(folder: Path) -> str | None:
    """The code that has trained a folder, joined by + where one continued what another began; None: not known."""
    return "+".join(_codes(folder)) or None


def _codes(folder: Path) -> list[str]:
    try:
        return [str(code) for code in json.loads((folder / CODE).read_text())["training_code"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def is_trained(folder: Path) -> bool:
    """Whether the training in this folder has taken its last step."""
    return (folder / EMA / RAW_WEIGHTS).exists()


def training_seconds(folder: Path) -> float:
    """How long the run in this folder has trained, over all its starts."""
    return float(checkpoint.facts(folder / CHECKPOINTS).get("training_seconds", 0.0))


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """While open, what the four layers log is written to this file too."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    layers = [logging.getLogger(name) for name in ("mpdit", "pipelines", "sweeps")]
    for layer in layers:
        layer.addHandler(handler)
        layer.setLevel(logging.INFO)
    try:
        yield
    finally:
        for layer in layers:
            layer.removeHandler(handler)
        handler.close()
