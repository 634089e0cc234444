"""`mpdit data`: list data sets, describe one, prepare images, encode them."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import JsonOption

if TYPE_CHECKING:
    from pipelines.data.prepare import Progress

LINE_EVERY = 30.0  # seconds between lines where there is no terminal
CLASSES_SHOWN = 20
SKIPPED_SHOWN = 10

data = typer.Typer(help="Data sets: list, info, prepare, encode.", no_args_is_help=True)

SetArgument = Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="digits, shapes, or a prepared set's folder.")]
FeaturesOption = Annotated[bool, typer.Option(help="Also train the features that samples are scored with.")]
SourceOutput = Annotated[Path, typer.Option("-o", "--output", help="The folder to make.")]


@data.command("list")
def list_(json_: JsonOption = False) -> None:
    """The data sets that a recipe can name, and the settings that each takes."""
    from mpdit.data.registry import DATASETS
    from mpdit.registry import settings_of

    if json_:
        rows = [{"name": kind.name, "settings": list(settings_of(kind)), "holds": kind.doc} for kind in DATASETS]
        print(json.dumps(rows, indent=2))
        return
    from cli.display.tables import aligned

    table = [[kind.name, ", ".join(settings_of(kind)) or "–", kind.doc] for kind in DATASETS]
    print(aligned(["name", "settings", "holds"], table))


@data.command()
def info(
    name: SetArgument,
    resolution: Annotated[int | None, typer.Option(help="Pixels a side, for shapes.")] = None,
    sheet: Annotated[Path, typer.Option("-o", "--output", help="The PNG to draw.")] = Path("contact-sheet.png"),
    json_: JsonOption = False,
) -> None:
    """What is in a data set: counts per class, shapes, mean ± std, fingerprint, a contact sheet."""
    from pipelines.data.inventory import contact_sheet, inventory, open_set

    dataset = open_set(name, resolution)
    facts = inventory(dataset)
    contact_sheet(dataset, sheet)
    facts["contact_sheet"] = str(sheet)
    if json_:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print(_described(facts))


def _described(facts: dict[str, Any]) -> str:
    from cli.display.tables import aligned

    counts = list(facts["counts"].items())
    shape = "×".join(str(side) for side in facts["shape"])
    channels = "  ".join(f"{mean:.3f} ± {std:.3f}" for mean, std in zip(facts["mean"], facts["std"], strict=True))
    lines = [
        ["name", facts["name"]],
        ["samples", f"{facts['count']:,} of {shape} ({facts['bytes'] / 1e6:,.1f} MB)"],
        ["images", "×".join(str(side) for side in facts["images"])],
        ["mean ± std", f"{channels} (a channel each), {facts['overall_std']:.4f} over all"],
        ["fingerprint", facts["fingerprint"]],
        ["classes", str(len(counts))],
    ]
    for key in ("source", "skipped", "notes", "vae", "contact_sheet"):
        if facts.get(key):
            value = facts[key]
            shown = ", ".join(f"{one} × {count}" for one, count in value.items()) if isinstance(value, dict) else value
            lines.append([key.replace("_", " "), str(shown)])
    text = "\n".join(f"{label:<15}{value}" for label, value in lines)
    text += "\n\n" + aligned(["class", "samples"], [[label, f"{count:,}"] for label, count in counts[:CLASSES_SHOWN]])
    return text + (f"\n… and {len(counts) - CLASSES_SHOWN} more" if len(counts) > CLASSES_SHOWN else "")


@data.command()
def prepare(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="Class folders, a zip, tar shards, or hf:NAME of the Hugging Face hub."),
    ],
    output: SourceOutput,
    resolution: Annotated[int, typer.Option(min=1, max=4096, help="Pixels a side, after cropping to a square.")],
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out what cannot be used, and count it.")] = False,
    rgb: Annotated[bool, typer.Option("--rgb", help="Three channels, also where every image is grey.")] = False,
    features: FeaturesOption = True,
) -> None:
    """Crop, resize and pack images once, so that training reads them as fast as it can.

    Stopped in any way, the same command continues.
    """
    from pipelines.data.prepare import prepare

    record = prepare(source, output, resolution, skip_bad, _progress("prepared"), rgb=rgb)
    classes = "1 class" if len(record.classes) == 1 else f"{len(record.classes)} classes"
    typer.echo(f"{record.count:,} images of {classes} are in {output}", err=True)
    if record.channels == 1:
        typer.echo("  all are grey: they have one channel (--rgb gives them three)", err=True)
    for what, count in record.notes.items():
        typer.echo(f"  {count:,} × {what}", err=True)
    if record.skipped:
        typer.echo(f"  {len(record.skipped):,} left out:", err=True)
        for name, reason in list(record.skipped.items())[:SKIPPED_SHOWN]:
            typer.echo(f"    {name} {reason}", err=True)
        if len(record.skipped) > SKIPPED_SHOWN:
            typer.echo(f"    … all are in {output}/set.json", err=True)
    if features:
        _train_features("folder", output)
    _say_how_to_use(output)


@data.command()
def encode(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A prepared set, or latents: the reference's folder, EDM2's zip.")
    ],
    output: SourceOutput,
    vae: Annotated[str, typer.Option(help="A VAE: a folder, a .safetensors, or a name on the Hugging Face hub.")],
    dtype: Annotated[str, typer.Option(help="bf16, or fp32 for twice the space.")] = "bf16",
    flip: Annotated[bool, typer.Option("--flip", help="Mirror each image with probability ½ first, once.")] = False,
    features: FeaturesOption = True,
) -> None:
    """Encode images with a VAE once; stopped in any way, the same command continues."""
    import torch

    from mpdit.data.latents import DTYPES
    from mpdit.errors import input_error
    from pipelines.data.encode import Encoding, make_latents

    if dtype not in DTYPES:
        raise input_error(f"no type {dtype!r} for latents", given=f"--dtype {dtype}", allowed=", ".join(DTYPES))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record = make_latents(source, output, vae, Encoding(dtype, flip, device), _progress("encoded"))
    shape = "×".join(str(side) for side in record.shape[1:])
    typer.echo(f"{record.count:,} latents of {shape} are in {output}", err=True)
    if features:
        _train_features("latents", output)
    _say_how_to_use(output)


def _say_how_to_use(folder: Path) -> None:
    """Print the data block of a sweep file, whole, and the command that writes such a file."""
    from pipelines.data.named_set import named_set

    chosen = named_set(str(folder))
    lines = [f"    {key}: {value}" for key, value in chosen.fields.items()]
    if chosen.takes_flips:
        far = chosen.features.get("mirrored")
        why = f"mirrored images are {far:g} times as far as the set's own; 1 is alike" if far else "not compared"
        lines.append(f"    flips: {str(chosen.flips).lower()}    # {why}")
    typer.echo("\n".join(["use it:", "  data:", *lines, f"or: mpdit new FILE --data {folder}"]), err=True)


def _train_features(kind: str, folder: Path) -> None:
    """Train the set's own feature extractor, unless it is there; a set with a single class has none."""
    from mpdit.data.registry import load_dataset
    from mpdit.errors import InputError
    from mpdit.scoring.small_classifier import extractor_card
    from pipelines.scoring.train_classifier import STEPS, train_extractor

    dataset = load_dataset(kind, path=str(folder), **({"flips": False} if kind == "folder" else {}))
    place = dataset.folder
    assert place is not None
    if not extractor_card(dataset.name, place):
        typer.echo(f"training the features {dataset.name!r}, which samples are scored with …", err=True)
        try:
            # a few hundred epochs at most
            train_extractor(dataset, place, steps=min(STEPS, 2 * len(dataset)), progress=_progress("steps"))
        except InputError as problem:
            typer.echo(f"no features of its own: {problem}", err=True)
            return
    accuracy = extractor_card(dataset.name, place)["held_out_accuracy"]
    typer.echo(f"its features name {accuracy:.1%} of the images that they never saw", err=True)


def _progress(done_word: str) -> "Progress":
    from rich.console import Console

    from cli.display.tables import duration

    console = Console(stderr=True)
    started = time.monotonic()
    last_shown = started
    first: int | None = None  # of this start: what an earlier one has done took it no time

    def show(done: int, total: int | None) -> None:
        nonlocal last_shown, first
        first = done - 1 if first is None else first
        now = time.monotonic()
        last = done == total
        if now - last_shown < (0.2 if console.is_terminal else LINE_EVERY) and not last:
            return
        last_shown = now
        rate = (done - first) / max(now - started, 1e-9)
        of = f" of {total:,}, {duration((total - done) / rate)} left" if total else ""
        end = "\r" if console.is_terminal and not last else "\n"
        console.print(
            f"{done:,} {done_word}{of}, {rate:.{1 if rate < 10 else 0}f} a second   ", end=end, highlight=False
        )

    return show
