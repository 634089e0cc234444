"""What `mpdit train` and `mpdit evaluate` do, as two functions: `from pipelines import train, evaluate`."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpdit.errors import InputError, input_error
from mpdit.model.old_designs import current_recipe
from mpdit.run_folder import RECIPE, check_weights, is_bundle
from pipelines.export import bundle_compiled, bundle_evaluation
from pipelines.old_identity import known_trial_id
from pipelines.recipe import Recipe
from pipelines.scoring import evaluation as scoring
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import ScoringOptions, compiling_pays, prepare
from pipelines.scoring.parallel import evaluate_in_parallel
from pipelines.scoring.ranks import all_ranks
from pipelines.scoring.sample_generator import Progress
from pipelines.training.measurements import Diverged
from pipelines.training.out_of_memory import OutOfMemory
from pipelines.training.processes import is_main_process
from pipelines.training.trainer import Report
from pipelines.training.trainer import train as train_recipe
from pipelines.training.training_folder import is_trained, read_recipe
from pipelines.yaml_file import Document, anchored, apply_settings, read_yaml, validate

RESULT = "result.json"

Drawing = Callable[[int, str], AbstractContextManager[Progress | None]]  # opened while so many samples are drawn


@dataclass(frozen=True)
class Trained:
    """A finished training: its folder, its recipe as settled, and its score as `evaluate` reports a cell.

    result: None in the processes that only help the first one.
    """

    folder: Path
    recipe: Recipe
    result: dict[str, Any] | None


def _unseen(_samples: int, _what: str) -> AbstractContextManager[None]:
    return nullcontext()


def train(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    output: str | Path | None = None,
    *,
    settings: Sequence[str] = (),
    report: Callable[[Recipe], Report] | None = None,
    drawing: Drawing = _unseen,
) -> Trained:
    """Train one recipe, or continue it, and score it at its own EMA width.

    recipe: a Recipe, its fields, or the path of its file, its run or its bundle. output: the run's folder;
    trained/ID by default. settings: changes, as `["optimizer.lr=0.02"]`. report: given the recipe, what is called with
    {"step", "metrics"} as the training goes. Raises InputError, Diverged, OutOfMemory.
    """
    asked, source = _read(recipe, settings)
    bundle = source if source is not None and is_bundle(source) else None
    evaluation = bundle_evaluation(bundle) if bundle else Evaluation()
    folder = Path(output) if output is not None else _default_folder(asked)
    if is_bundle(folder):
        raise input_error(
            f"{folder} is a bundle, not a place to train in", given=folder, hint="choose another --output"
        )
    prepare(asked, [evaluation])
    try:
        settled = train_recipe(asked, folder, report(asked) if report else lambda _line: None)
    except Diverged as end:
        end.add_note(f"the run is in {folder}")
        raise
    except OutOfMemory as end:
        end.add_note(f"the run is in {folder}; the same call continues it")
        raise
    results: list[dict[str, Any]] = []
    cell, compiled = Cell(settled.ema.sigma_rel, evaluation), bundle is not None and bundle_compiled(bundle)
    with drawing(evaluation.samples, "scoring") if is_main_process() else nullcontext() as drawn:
        options = ScoringOptions(progress=drawn, compiled=compiled, ranks=all_ranks())
        scoring.evaluate(folder, settled, [cell], results.append, options)
    if not is_main_process():
        return Trained(folder, settled, None)
    (folder / RESULT).write_text(json.dumps(results[0], indent=2) + "\n")
    return Trained(folder, settled, results[0])


def _default_folder(recipe: Recipe) -> Path:
    """trained/ID; with the id of an older release where that one has begun it."""
    folder = Path("trained")
    return folder / known_trial_id(recipe, lambda name: (folder / name).exists())


def _read(recipe: Recipe | Mapping[str, Any] | str | Path, settings: Sequence[str]) -> tuple[Recipe, Path | None]:
    """The recipe as asked for, and the path that it came from."""
    if isinstance(recipe, (str, Path)):
        source = Path(recipe)
        document = anchored(read_yaml(source / RECIPE if source.is_dir() else source), ("data", "path"))
        document.data = current_recipe(document.data)
    else:
        source, data = None, recipe.model_dump() if isinstance(recipe, Recipe) else dict(recipe)
        document = Document(data, "the recipe", {})
    document = apply_settings(document, list(settings))
    asked = validate(Recipe, document)
    try:
        asked.facts  # noqa: B018  (the data is opened)
    except InputError as problem:
        raise InputError(f"{document.place(('data', 'path'))}: {problem}") from None
    return asked, source


def evaluate(  # noqa: PLR0913  (public: its options are named)
    run: str | Path,
    widths: Sequence[float] | None = None,
    *,
    settings: Sequence[str] = (),
    samples: int | None = None,
    extractor: str | None = None,
    metrics: Sequence[str] | None = None,
    reference: str | Path | None = None,
    drawing: Drawing = _unseen,
) -> list[dict[str, Any]]:
    """Score a finished run or a bundle at one or more EMA widths (its own by default); 0 is the raw weights.

    run: its folder. settings: of the evaluation, as `["guidance=2", "guide.step=0.0625"]`. reference: an `.npz` in
    ADM's format to measure against; by default the data, or what a bundle was measured against. Returns a cell's result
    for each width. Stopped, the same call continues. Raises InputError.
    """
    folder = Path(run)
    recipe = read_recipe(folder)
    check_weights(folder)
    if not is_bundle(folder) and not is_trained(folder):
        raise input_error(f"the run in {folder} is not finished", hint=f"mpdit train {folder} --output {folder}")
    evaluation = bundle_evaluation(folder) if is_bundle(folder) else Evaluation()
    asked = {
        "samples": samples,
        "extractor": extractor,
        "metrics": None if metrics is None else list(metrics),
        "reference": None if reference is None else str(Path(reference).resolve()),
    }
    changed = {name: value for name, value in asked.items() if value is not None}
    given = apply_settings(Document(evaluation.model_dump() | changed, "the options", {}), list(settings))
    evaluation = validate(Evaluation, given)
    prepare(recipe, [evaluation])
    results: list[dict[str, Any]] = []
    cells = [Cell(width, evaluation) for width in ([recipe.ema.sigma_rel] if widths is None else widths)]
    compiled = bundle_compiled(folder) if is_bundle(folder) else compiling_pays(cells)
    with drawing(len(cells) * evaluation.samples, "scoring") as drawn:
        options = ScoringOptions(progress=drawn, compiled=compiled)
        evaluate_in_parallel(folder, recipe, cells, results.append, options)
    scoring.forget(folder)
    places = {cell.key: place for place, cell in enumerate(cells)}
    return sorted(results, key=lambda result: places[result["cell"]])
