"""Commands that write something for a person: a report, a sweep file, the schema of sweep files."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import DEFAULT_STORAGE, ByOption, StorageOption, SweepArgument
from mpdit.errors import input_error


def report(
    name: SweepArgument = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The HTML file; SWEEP-report.html by default.")
    ] = None,
    by: ByOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Write a sweep's report: one HTML file that needs no network. A running sweep's is of what is known so far."""
    from cli.options import check_metric
    from cli.results import recorded
    from sweeps.report.page import write_report
    from sweeps.results.ranking import rank_in
    from sweeps.storage.open_storage import open_storage

    check_metric(by)
    where = open_storage(storage)
    found, made, events = recorded(where, name)
    rows = rank_in(where, made, events, by)
    for trial in dict.fromkeys(row.trial for row in rows):
        where.bring(trial, small=True)
    path = write_report(where, made, rows, events, output or Path(f"{found}-report.html"))
    print(f"the report of {found} is in {path}", file=sys.stderr)


def schema(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file; printed by default.")] = None,
) -> None:
    """Print the JSON Schema of sweep files, for editors that check and complete them."""
    from sweeps.spec.schema import sweep_schema

    text = json.dumps(sweep_schema(), indent=2, ensure_ascii=False)
    if output:
        output.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


def new(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="The file to write; sweep.yaml.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write, as FILE.")] = None,
    name: Annotated[str | None, typer.Option(help="The sweep's name.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME|FOLDER", help="digits, shapes, or a prepared set's folder.")
    ] = None,
    flips: Annotated[
        bool | None, typer.Option("--flips/--no-flips", help="Train on mirrored images too; as suits the set.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="The model's size: nano, XS, S, B, L, XL.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps of each trial.")] = None,
    modulations: Annotated[str | None, typer.Option(metavar="M,M,…", help="Modulations to compare.")] = None,
    rates: Annotated[str | None, typer.Option(metavar="R,R,…", help="Learning rates.")] = None,
    widths: Annotated[str | None, typer.Option(metavar="W,W,…", help="EMA widths σ_rel; 0 is the raw weights.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="S,S,…", help="Training seeds.")] = None,
) -> None:
    """Write a commented sweep file: from options, and on a terminal by asking for the rest."""
    from sweeps.spec.template import Answers, completed, write_sweep_file

    if file and output and file != output:
        raise input_error("two files to write", given=f"{file}, --output {output}", hint="give one of them")
    file = file or output or Path("sweep.yaml")
    given = {
        "name": name,
        "data": data,
        "flips": flips,
        "size": size,
        "steps": steps,
        "modulations": modulations,
        "rates": rates,
        "widths": widths,
        "seeds": seeds,
    }
    known: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for key in (key for key in given if key not in known and sys.stdin.isatty()):
        usual = getattr(completed(Answers(**known)), key)  # what suits the data that is known by now
        if usual is not None:
            known[key] = (typer.confirm if isinstance(usual, bool) else typer.prompt)(key, default=usual, err=True)
    spec = write_sweep_file(file, Answers(**known))
    print(f"the sweep {spec.name} is in {file}; next:\n  mpdit plan {file}\n  mpdit sweep {file}", file=sys.stderr)
