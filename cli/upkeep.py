"""Commands that stop a sweep, retry it, bring MLflow up to date, and free disk space: stop, retry, sync, clean."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEFAULT_STORAGE, AddressOption, StorageOption, SweepArgument
from cli.results import recorded
from cli.sweeping import conduct
from mpdit.errors import input_error, nearest

if TYPE_CHECKING:
    from sweeps.storage.layout import Storage

PATIENCE = 120.0  # seconds for a driver to stop its trials and write down how they ended


def stop(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="The sweep.")],
    trial: Annotated[str | None, typer.Argument(metavar="[TRIAL]", help="One trial; the whole sweep without.")] = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Stop a sweep that runs in another terminal, or one of its trials at its next report."""
    from sweeps.results.trial_states import trial_states
    from sweeps.storage.open_storage import open_storage
    from sweeps.storage.stop_requests import ask_to_stop

    where = open_storage(storage)
    found, made, events = recorded(where, name)
    if not where.is_running(found):
        raise input_error(f"{found} is not running", hint=f"mpdit status {found}")
    where.prepare()  # says so where it can only be read
    if trial is None:
        ask_to_stop(where, found)
        _wait_for_the_end(where, found)
        return
    states = trial_states(made, events, alive=True)
    if trial not in states:
        raise input_error(
            f"{found} has no trial {trial!r}", given=trial, nearest=nearest(trial, states), allowed=", ".join(states)
        )
    status = states[trial].status
    if not status.is_open:
        raise input_error(f"trial {trial} is {status} already", hint=f"mpdit status {found}")
    ask_to_stop(where, found, trial)
    print(f"{trial} stops at its next report; mpdit retry {found} takes it up again", file=sys.stderr)


def _wait_for_the_end(where: "Storage", name: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while where.is_running(name) and time.monotonic() < deadline:
        time.sleep(0.3)
    if where.is_running(name):
        raise input_error(f"{name} does not stop", hint="end its process: the same command continues it")
    print(f"{name} is stopped; mpdit retry {name} or the same mpdit sweep continues it", file=sys.stderr)


def retry(
    name: SweepArgument = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only trials that failed or ran out of memory.")] = False,
    storage: StorageOption = DEFAULT_STORAGE,
    address: AddressOption = None,
) -> None:
    """Take up again what a sweep has not finished, from its checkpoints: stopped trials too. Sends no notices."""
    from sweeps.execution.driver import RunOptions
    from sweeps.spec.model import Notify
    from sweeps.storage.ledger import trial_statuses
    from sweeps.storage.open_storage import open_storage

    where = open_storage(storage)
    found, made, events = recorded(where, name)
    statuses = trial_statuses(events)
    wanted = [t.id for t in made.trials if (statuses[t.id].is_fault if failed else not statuses[t.id].is_final)]
    if not wanted:
        print(f"nothing to retry: every trial of {found} " + ("has not failed" if failed else "is finished"))
        return
    again = [trial for trial in wanted if not statuses[trial].is_open]  # what has ended
    if made.spec.notify != Notify():
        print("no notices are sent: their commands are taken from your own file only, by mpdit sweep", file=sys.stderr)
    conduct(made, where, RunOptions(only=wanted, again=again, address=address), storage, Notify())


def sync(
    name: SweepArgument = None,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", metavar="URI", help="Another MLflow; the sweep's own by default.")
    ] = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Bring MLflow up to date from the sweep's ledger, or show the sweep in another MLflow."""
    from sweeps.storage.open_storage import open_storage
    from sweeps.tracking.tracking_thread import synchronise

    where = open_storage(storage)
    found, made, events = recorded(where, name)
    if where.is_running(found):
        raise input_error(
            f"{found} is running: its driver brings MLflow up to date by itself", hint="sync when it is over"
        )
    shown, place = synchronise(where, made, events, tracking_uri)
    print(f"{found}: {shown} events shown at {place}")


def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    best: Annotated[
        int | None, typer.Option(min=1, help="Keep the weights of so many points of each sweep; else what it says.")
    ] = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Show what of a storage can go, and remove it."""
    from cli.display.tables import aligned
    from sweeps.execution.retention import removable, remove
    from sweeps.storage.open_storage import open_storage

    where = open_storage(storage)
    where.check()
    found = removable(where, best)
    if not found:
        print("nothing to remove")
        return
    rows = [[_short(removal.path, where.root), f"{removal.bytes / 1e6:.1f}", removal.why] for removal in found]
    print(aligned(["what", "MB", "why"], rows))
    print(f"{sum(removal.bytes for removal in found) / 1e6:.1f} MB")
    if not yes and not (sys.stdin.isatty() and typer.confirm("remove them?")):
        print("nothing is removed; --yes removes them", file=sys.stderr)
        return
    where.prepare()  # says so where it can only be read
    left = remove(where, found, best)
    print("removed", file=sys.stderr)
    for removal in left:
        print(f"left, because it is in use or needed by now: {_short(removal.path, where.root)}", file=sys.stderr)


def _short(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
