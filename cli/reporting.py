"""Commands that write something for a person: a report, a sweep file, the schema of sweep files."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_STORAGE, ByOption, StorageOption, SweepArgument


def report(
    name: SweepArgument = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The HTML file; SWEEP-report.html by default.")
    ] = None,
    by: ByOption = "frechet",
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Write a sweep's report: one HTML file that needs no network. A running sweep's is of what is known so far."""
    from cli.sweeping import check_metric, recorded
    from sweeps.ranking import rank
    from sweeps.report import write_report
    from sweeps.storage import Storage

    check_metric(by)
    where = Storage(storage)
    found, made, events = recorded(where, name)
    rows = rank(made, events, by, where.is_running(found))
    path = write_report(where, made, rows, events, output or Path(f"{found}-report.html"))
    print(f"the report of {found} is in {path}", file=sys.stderr)


def schema() -> None:
    """Print the JSON Schema of sweep files, for editors that check and complete them."""
    from sweeps.schema import sweep_schema

    print(json.dumps(sweep_schema(), indent=2, ensure_ascii=False))
