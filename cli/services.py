"""Commands around a storage: MLflow's pages, and a check of the machine."""

import sys
from typing import Annotated

import typer

from cli.options import DEFAULT_STORAGE, StorageOption

FAILED = 1


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on this machine.")] = 5000,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Open MLflow over the storage, on this machine only."""
    from sweeps.pages import served
    from sweeps.storage import Storage

    where = Storage(storage)
    where.check()
    print("starting MLflow …", file=sys.stderr, flush=True)
    with served(where, port) as server:
        print(f"{where.root} is at http://127.0.0.1:{port} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        server.wait()


def doctor(storage: StorageOption = DEFAULT_STORAGE) -> None:
    """Check that a sweep could run here; every line says ok, warn or fail, and the mend."""
    from sweeps.doctor import examine
    from sweeps.storage import Storage

    findings = examine(Storage(storage))
    for finding in findings:
        print(f"{finding.grade:<4}  {finding.what}" + (f"\n      → {finding.mend}" if finding.mend else ""))
    if any(finding.grade == "fail" for finding in findings):
        raise typer.Exit(FAILED)
