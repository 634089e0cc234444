"""Commands around a storage: MLflow's pages, and a check of the machine."""

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_STORAGE, FAILED, StorageOption, SweepArgument


def end_on_interrupt() -> None:
    """Let SIGINT end a server also where a shell has started it in the background (`… &`), which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on this machine.")] = 5000,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Open MLflow over the storage, on this machine only."""
    from sweeps.storage.open_storage import open_storage
    from sweeps.tracking.mlflow_server import served
    from sweeps.tracking.mlflow_view import cells_page

    end_on_interrupt()
    where = open_storage(storage)
    where.check()
    print("starting MLflow …", file=sys.stderr, flush=True)
    with served(where, port) as server:
        print(f"{where.root} is at http://127.0.0.1:{port} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        newest = where.sweep_names()[:1]
        page = cells_page(where, newest[0]) if newest else None
        if page:
            print(f"the cells of {newest[0]}, best first: http://127.0.0.1:{port}{page}", file=sys.stderr, flush=True)
        server.wait()


def watch(
    name: SweepArgument = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port on this machine; 0: any that is free.")] = 5001,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Serve the report of a sweep as it runs, on this machine only; the page follows by itself."""
    from sweeps.report.live_page import watched
    from sweeps.storage.open_storage import open_storage

    end_on_interrupt()
    where = open_storage(storage)
    where.check()
    found = where.find_sweep(name)
    with watched(where, found, port) as address:
        print(f"{found} is at {address} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        threading.Event().wait()


def doctor(
    storage: StorageOption = DEFAULT_STORAGE,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", "-o", "--output", metavar="FILE", help="Write it to a file for a bug report, without secrets."
        ),
    ] = None,
) -> None:
    """Check that a sweep could run here; every line says ok, warn or fail, and what to do."""
    from sweeps.bug_report import write_report
    from sweeps.doctor import examine
    from sweeps.storage.open_storage import open_storage

    findings = []
    for finding in examine(open_storage(storage)):
        findings.append(finding)
        print(finding.text, flush=True)
    if bundle:
        write_report(bundle, findings, open_storage(storage))
        print(f"written to {bundle}: read it before you send it", file=sys.stderr)
    if any(finding.grade == "fail" for finding in findings):
        raise typer.Exit(FAILED)
