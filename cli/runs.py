"""Commands about one run: train it, score it, sample it."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import (
    DEFAULT_STORAGE,
    EvaluationSetOption,
    InceptionOption,
    JsonOption,
    SetOption,
    StorageOption,
    name_inception_weights,
)
from mpdit.errors import input_error, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.recipe import Recipe

CLASSES_NAMED = 20  # in a message

RunArgument = Annotated[str, typer.Argument(metavar="RUN|BUNDLE", help="A trial's id, or a run's or bundle's folder.")]


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN|BUNDLE", help="A recipe's file, a trial's id, or a folder.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The run's folder; trained/ID by default.")
    ] = None,
    set_: SetOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    json_: JsonOption = False,
) -> None:
    """Train one recipe, or continue it, and score it at its own EMA width."""
    from cli.display.drawing import drawing
    from pipelines.api import train

    done = train(_recipe_of(recipe, storage), output, settings=set_ or [], report=_progress_line, drawing=drawing)
    if done.result is not None:
        _print_results([done.result], json_)
        typer.echo(f"the run is in {done.folder}", err=True)


def _recipe_of(given: str, storage: str) -> Path:
    """The path that was given or, where nothing lies there and it is no file's name, the folder of the trial."""
    from sweeps.storage.open_storage import open_storage

    path = Path(given)
    return path if path.exists() or path.suffix or path.name != given else open_storage(storage).find_run(given)


def evaluate(
    run: RunArgument,
    ema: Annotated[str | None, typer.Option(metavar="W,W,…", help="EMA widths σ_rel; 0 is the raw weights.")] = None,
    samples: Annotated[int | None, typer.Option(min=10, help="Samples to score with.")] = None,
    extractor: Annotated[
        str | None, typer.Option(metavar="NAME", help="Features: auto (the data's own), inception, dinov2.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="M,M,…", help="Besides: kid, precision_recall, inception_score …")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Measure against it (ADM's format), not against the data set."),
    ] = None,
    set_: EvaluationSetOption = None,
    inception_weights: InceptionOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    json_: JsonOption = False,
) -> None:
    """Score a finished run or a bundle at one or more EMA widths. Stopped, the same command continues."""
    from cli.display.drawing import drawing
    from pipelines.api import evaluate
    from sweeps.storage.open_storage import open_storage

    name_inception_weights(inception_weights)
    folder = open_storage(storage).find_run(run)
    more = metrics.split(",") if metrics else None
    results = evaluate(
        folder,
        _widths(ema),
        settings=set_ or [],
        samples=samples,
        extractor=extractor,
        metrics=more,
        reference=reference,
        drawing=drawing,
    )
    _print_results(results, json_)


def sample(
    run: RunArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="The PNG to write.")] = Path("grid.png"),
    classes: Annotated[
        str | None, typer.Option(metavar="C,C,…", help="Classes by name or number, a column each; all by default.")
    ] = None,
    guidance: Annotated[float, typer.Option(min=0, help="Guidance scale; 1 is none.")] = 1.0,
    set_: EvaluationSetOption = None,
    ema: Annotated[float | None, typer.Option(help="EMA width σ_rel; the recipe's own by default.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Samples of each class.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Noise seed.")] = 0,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Draw a grid of samples, a column for each class. Stopped, the same command continues."""
    from cli.display.drawing import drawing
    from mpdit import load
    from pipelines.export import class_names
    from pipelines.recipe import Recipe
    from pipelines.scoring.cell import Cell, Evaluation
    from pipelines.scoring.feature_cache import FeatureCache
    from pipelines.scoring.networks.asked import check_networks
    from pipelines.scoring.networks.guides import Guides
    from pipelines.scoring.networks.loading import load_networks
    from pipelines.scoring.pictures import write_grid
    from pipelines.scoring.sample_generator import SampleGenerator, SampleGrid, identity
    from pipelines.yaml_file import Document, apply_settings, validate
    from sweeps.storage.open_storage import open_storage

    folder = open_storage(storage).find_run(run)
    options = Document({"guidance": guidance, "seed": seed}, "the options")
    evaluation = validate(Evaluation, apply_settings(options, set_ or []))
    denoiser, recipe = load(folder, ema)
    known = class_names(folder)
    named = len(known) == denoiser.no_class  # else they are another set's, which lies where the data was
    names = known if named else tuple(str(number) for number in range(denoiser.no_class))
    chosen = [_class(text.strip(), names) for text in classes.split(",")] if classes else list(range(len(names)))
    pixels = Recipe.model_validate(recipe).dataset.to_pixels if recipe["data"]["name"] == "latents" else identity
    asked = Recipe.model_validate(recipe)
    check_networks(asked, evaluation)
    cell = Cell(recipe["ema"]["sigma_rel"] if ema is None else ema, evaluation)
    generator, guide = SampleGenerator(denoiser, pixels), Guides(folder, [cell]).of(cell)
    load_networks(generator, evaluation, denoiser, guide.denoiser if guide else None, lambda: asked.dataset)
    facts = {
        **evaluation.model_dump(mode="json"),
        "weights": [generator.weights, generator.guide_weights],
        "classes": chosen,
    }
    cache = FeatureCache(output.parent / f".{output.name}.unfinished", facts)
    with drawing(rows * len(chosen), "drawing") as drawn:
        images = SampleGrid(evaluation, chosen, rows).draw(generator, cache, drawn)
    write_grid(output, images, len(chosen), [names[number] for number in chosen] if named else ())
    cache.remove()
    typer.echo(f"{rows} samples of each of {len(chosen)} classes are in {output}", err=True)


def _class(text: str, names: "Sequence[str]") -> int:
    """The number of the class of that name or, where none is called so, of that number."""
    if text in names:
        return list(names).index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    numbers = f"0 to {len(names) - 1}"
    plain = all(name.isdecimal() for name in names)
    shown = [*names[:CLASSES_NAMED], *(["…"] if len(names) > CLASSES_NAMED else [])]
    raise input_error(
        f"there is no class {text!r}",
        given=text,
        nearest=nearest(text, names),
        allowed=f"{numbers if plain else ', '.join(shown)}, separated by commas",
    )


def _widths(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise input_error("--ema takes numbers", given=text, allowed="widths from 0 to 0.288, as 0.05,0.1") from None


def _progress_line(recipe: "Recipe") -> Any:
    from rich.console import Console

    console = Console(stderr=True)

    def show(line: dict[str, Any]) -> None:
        metrics = line["metrics"]
        if line["step"] == 0:
            return  # the magnitudes before the first step
        rate = metrics["images_per_second"]
        left = (recipe.steps - line["step"]) * recipe.batch / rate
        end = "\r" if console.is_terminal and line["step"] < recipe.steps else "\n"
        if console.is_terminal or line["step"] == recipe.steps:
            text = (
                f"step {line['step']}/{recipe.steps}  loss {metrics['loss']:.3f}  {rate:.0f} img/s  {left:.0f} s left  "
            )
            console.print(text, end=end, highlight=False)

    return show


def _print_results(results: list[dict[str, Any]], json_: bool) -> None:
    from cli.display.tables import aligned, number
    from pipelines.scoring.metrics.registry import without_details

    if json_:
        print(json.dumps(results, indent=2))
        return
    more = list(without_details(results[0]["more"]))
    rows = [
        [
            str(result["params"]["ema.sigma_rel"]),
            number(result["value"]),
            number(result["stderr"]),
            number(result["magnitude_drift"], 2),
            *[number(result["more"].get(name)) for name in more],
        ]
        for result in results
    ]
    print(aligned(["sigma_rel", results[0]["metric"], "±", "drift", *more], rows))
    print(f"noise floor: {results[0]['noise_floor']:.3f}, what real images would score with as many samples")
    for warning in dict.fromkeys(text for result in results for text in result["warnings"]):
        print(f"warning: {warning}", file=sys.stderr)
