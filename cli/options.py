"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mpdit.errors import input_error

StorageOption = Annotated[
    str,
    typer.Option(
        "--storage",
        metavar="PLACE",
        envvar="MPDIT_STORAGE",
        help="Holds sweeps and trials: a folder, s3://BUCKET/PREFIX.",
    ),
]
DEFAULT_STORAGE = "runs"
FAILED, INTERRUPTED = 1, 130  # exit codes
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change one field of the file; may be repeated.")
]
EvaluationSetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change one setting of the evaluation, as guidance=2; repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")]
SweepArgument = Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="A sweep's name; the newest by default.")]
SweepFile = Annotated[str, typer.Argument(metavar="FILE|NAME", help="A sweep file, or one that comes with mpdit.")]
SizeOption = Annotated[str | None, typer.Option("--size", metavar="SIZE", help="Carry the recipe to this size.")]
PatchOption = Annotated[int | None, typer.Option("--patch", min=1, help="Carry the recipe to this patch.")]
ByOption = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="METRIC",
        help="A metric, as frechet or precision; the sweep's first objective by default.",
    ),
]
AddressOption = Annotated[
    str | None, typer.Option("--address", metavar="RAY", help="A Ray cluster, HOST:PORT or auto; one of its own else.")
]
ReuseOption = Annotated[
    str,
    typer.Option(
        metavar="any|same-code|none",
        help="Which finished trials are taken as they are: any, those of today's code, or none.",
    ),
]
InceptionOption = Annotated[
    Path | None,
    typer.Option(
        "--inception-weights", help="A file of Inception-v3's weights; MPDIT_INCEPTION_WEIGHTS names one too."
    ),
]


def check_metric(by: str | None) -> None:
    """Raise InputError where --by names no metric."""
    from pipelines.scoring.metrics.registry import METRICS

    if by is not None:
        METRICS[by]


def name_inception_weights(path: Path | None) -> None:
    """Pass the weights that the option names to this process and to its workers, by the environment."""
    if path is not None:
        os.environ["MPDIT_INCEPTION_WEIGHTS"] = str(path.expanduser().resolve())


UNTIL = ("settled",)
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="settled", help="Go on with what `mpdit suggest` says until nothing is worth it."),
]


def check_until(until: str | None) -> None:
    """Raises InputError for anything that a sweep cannot go on until."""
    if until is not None and until not in UNTIL:
        raise input_error(f"a sweep cannot go on until {until}", given=f"--until {until}", allowed=", ".join(UNTIL))


def storage_option(storage: str) -> str:
    """What a command needs to find this storage again: ` --storage PLACE`, or nothing for the default one."""
    return "" if storage == DEFAULT_STORAGE else f" --storage {storage}"
