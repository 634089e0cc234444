"""Commands about sweeps: run one, plan one, show and rank one, export the best of one."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    DEFAULT_STORAGE,
    AddressOption,
    ByOption,
    CsvOption,
    InceptionOption,
    JsonOption,
    PatchOption,
    ReuseOption,
    SetOption,
    SizeOption,
    StorageOption,
    SweepArgument,
    SweepFile,
    check_metric,
    name_inception_weights,
)
from mpdit.errors import input_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sweeps.execution.driver import RunOptions
    from sweeps.planning.plan import Plan, Trial
    from sweeps.planning.reuse import Reuse
    from sweeps.results.ranking import Row
    from sweeps.spec.model import Notify
    from sweeps.storage.events import Event, TrialEnded
    from sweeps.storage.layout import Storage

FAILED, INTERRUPTED = 1, 130
SHOWN_AT_THE_END = 10
LAST_LINES = 6  # of a failing trial's log


def sweep(
    file: SweepFile,
    storage: StorageOption = DEFAULT_STORAGE,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time; the machine's own number by default.")
    ] = None,
    set_: SetOption = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop the sweep when a trial fails.")] = False,
    inception_weights: InceptionOption = None,
    address: AddressOption = None,
    reuse: ReuseOption = "any",
) -> None:
    """Run a sweep, or continue it: what is done is reused, what is new is run."""
    from sweeps.execution.driver import RunOptions
    from sweeps.planning.reuse import Reuse
    from sweeps.storage.open_storage import open_storage

    name_inception_weights(inception_weights)
    made = _read_plan(file, set_)
    options = RunOptions(max_concurrent, fail_fast, address=address, reuse=Reuse(reuse))
    conduct(made, open_storage(storage), options, storage, made.spec.notify)


def conduct(plan: "Plan", where: "Storage", options: "RunOptions", storage: str, notify: "Notify") -> None:
    """Run a sweep with its display, show its ranking, and end with its exit code.

    storage: as the user wrote it. notify: whom to notify; only ever from the user's own file.
    """
    from rich.console import Console

    from cli.progress import SweepProgress
    from sweeps.execution.driver import SweepEnd, run
    from sweeps.execution.notify import Notifier, call_each
    from sweeps.planning.plan import make_plan
    from sweeps.results.ranking import rank_in
    from sweeps.storage.ledger import read
    from sweeps.storage.trial_status import TrialStatus

    name = plan.spec.name
    ledger = where.ledger(name)
    past = read(ledger)
    plan = make_plan(plan.spec, past, where.trial_names())
    _warn_of_other_code(plan, where, options.reuse)
    try:
        with SweepProgress(plan, past, Console(stderr=True)) as progress, Notifier(plan, past, notify) as notifier:
            end = run(plan, where, call_each(progress, notifier), options)
    except KeyboardInterrupt:  # before or after Ray Tune handles it
        end = SweepEnd(TrialStatus.INTERRUPTED, 0)
    option = "" if storage == DEFAULT_STORAGE else f" --storage {storage}"
    if end.tracking_problem:
        print(f"MLflow does not show everything: {end.tracking_problem}", file=sys.stderr)
        print(f"  mpdit sync {name}{option}", file=sys.stderr)
    if end.fault:
        print(f"{end.fault}\neverything reported is kept, and the same command continues", file=sys.stderr)
        raise typer.Exit(FAILED)
    if end.outcome is TrialStatus.INTERRUPTED:
        print("interrupted; everything reported is kept, and the same command continues", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    if end.cut:
        print(f"{end.cut}: the sweep ends with what it has; with a larger budget the same command goes on")
    elif not end.worked:
        print("nothing to train or score: every cell is known\n")
    events = read(ledger)
    rows = rank_in(where, plan, events)
    _print_ranking(plan, events, rows, None, SHOWN_AT_THE_END)
    program = "mpdit" if shutil.which("mpdit") else sys.argv[0]
    steps = (f"rank {name}", f"report {name}", "ui", f"best {name} --export")
    print("\n".join(["\nnext:", *(f"  {program} {step}{option}" for step in steps)]))
    if end.outcome is TrialStatus.FAILED:
        print(f"\n{_counted(plan, events)}", file=sys.stderr)
        _print_failures(plan, events, where)
        print(f"\n  {program} retry {name} --failed{option}", file=sys.stderr)
        raise typer.Exit(FAILED)


def _warn_of_other_code(plan: "Plan", where: "Storage", reuse: "Reuse") -> None:
    from sweeps.planning.known_work import known_events
    from sweeps.planning.reuse import Reuse, reuse_warning

    if reuse is Reuse.ANY and (warning := reuse_warning(plan, known_events(where, plan))):
        print(warning, file=sys.stderr)


def plan(
    file: SweepFile,
    storage: StorageOption = DEFAULT_STORAGE,
    set_: SetOption = None,
    size: SizeOption = None,
    patch: PatchOption = None,
    measure_: Annotated[
        bool, typer.Option("--measure", help="Time a few steps of each network here; about a minute.")
    ] = False,
    json_: JsonOption = False,
    csv_: CsvOption = False,
) -> None:
    """Show what a sweep will do and cost; starts nothing. With --size, what tuning small and training large saves."""
    from cli.tables import plan_csv, plan_table, transfer_table
    from sweeps.execution.cluster import slots_here
    from sweeps.planning.known_work import cost_of, known_events, unfinished, untrained
    from sweeps.planning.plan import make_plan
    from sweeps.planning.reuse import reuse_warning
    from sweeps.spec.reading import check_unchanged
    from sweeps.storage.open_storage import open_storage

    where = open_storage(storage)
    made = _read_plan(file, set_, where.trial_names())
    where.check()
    check_unchanged(where.spec(made.spec.name), made.spec)
    events = known_events(where, made)
    made = make_plan(made.spec, events, where.trial_names())
    if warning := reuse_warning(made, events):
        print(warning, file=sys.stderr)
    remaining = unfinished(made, events)
    here = slots_here(made.spec)
    measured = _measured(made, untrained(made.expected, where, events) or remaining, here) if measure_ else None
    cost = cost_of(made, where, events, here, measured)
    saved = None
    if size or patch:
        from sweeps.planning.transfer_cost import transfer_cost

        saved = transfer_cost(made, where, size, patch)
    if csv_:
        print(plan_csv(made, untrained(made, where, events), remaining), end="")
        return
    if not json_:
        print(plan_table(made, untrained(made, where, events), remaining, cost))
        if saved:
            print(f"\n{transfer_table(saved)}")
        return
    waiting = {trial.id for trial in remaining}
    trials = [
        {"id": t.id, "params": t.params, "parameters": t.parameters, "steps": t.recipe.steps} for t in made.trials
    ]
    document = {
        "sweep": made.spec.name,
        "trials": trials,
        "cells": (len(made.trials) + made.open) * len(made.cells),
        "training_axes": made.spec.training_axes,
        "post_hoc_axes": made.spec.post_hoc_axes,
        "estimate": cost.as_dict(),
        "reused": [trial.id for trial in made.trials if trial.id not in waiting],
    }
    if made.open:
        document["open"] = made.open
    if saved:
        document["transfer"] = saved.as_dict()
    print(json.dumps(document, indent=2))


def _measured(made: "Plan", trials: "list[Trial]", slots: int) -> "list[TrialEnded]":
    from sweeps.planning.timing_probe import measure

    return measure(made, trials, slots)


def status(
    name: SweepArgument = None,
    storage: StorageOption = DEFAULT_STORAGE,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it until the sweep ends.")] = False,
    json_: JsonOption = False,
) -> None:
    """Show where each trial of a sweep stands."""
    from cli.tables import trials_table
    from sweeps.results.trial_states import trial_states
    from sweeps.storage.open_storage import open_storage

    where = open_storage(storage)
    found, made, events = recorded(where, name)
    if watch and not json_:
        _watch(where, found)
        made, events = recorded(where, found)[1:]
    alive = where.is_running(found)
    rows = [state.as_dict() for state in trial_states(made, events, alive).values()]
    if json_:
        print(json.dumps({"sweep": found, "running": alive, "trials": rows}, indent=2))
        return
    print(f"{found}: {'running' if alive else 'not running'}; {_counted(made, events, alive)}\n")
    print(trials_table(rows, made.spec.training_axes))


def _watch(where: "Storage", name: str) -> None:
    from rich.console import Console

    from cli.progress import watch
    from sweeps.storage.ledger import read
    from sweeps.storage.open_storage import refresh

    def known() -> "list[Event]":
        refresh(where, name)
        return read(where.ledger(name))

    try:
        watch(
            recorded(where, name)[1],
            known,
            lambda: where.is_running(name),
            Console(stderr=True),
        )
    except KeyboardInterrupt:  # the sweep goes on; only this command ends
        raise typer.Exit(INTERRUPTED) from None


def rank(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[SWEEP]…", help="Sweeps; the newest by default.")
    ] = None,
    storage: StorageOption = DEFAULT_STORAGE,
    json_: JsonOption = False,
    csv_: CsvOption = False,
    optuna: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a study for optuna-dashboard.")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only the best N.")] = None,
    by: ByOption = None,
    columns: Annotated[str | None, typer.Option(metavar="M,M,…", help="Metrics to show besides.")] = None,
) -> None:
    """List the cells of a sweep, best first."""
    from sweeps.results.ranking import as_csv, rank_in
    from sweeps.storage.open_storage import open_storage

    check_metric(by)
    shown = [name for name in (columns or "").split(",") if name]
    where = open_storage(storage)
    documents = []
    for name in names or [None]:  # type: ignore[list-item]
        found, made, events = recorded(where, name)
        rows = rank_in(where, made, events, by, shown)
        if optuna:
            from sweeps.results.importance import write_study

            write_study(
                made, rows[:top], optuna if len(names or []) < 2 else optuna.with_stem(f"{optuna.stem}-{found}")
            )
        if json_:
            documents += [row.as_dict() for row in rows[:top]]
        elif csv_:
            print(as_csv(rows[:top]), end="")
        else:
            _print_ranking(made, events, rows, by, top)
    if json_:
        print(json.dumps(documents, indent=2))


def best(
    name: SweepArgument = None,
    storage: StorageOption = DEFAULT_STORAGE,
    by: ByOption = None,
    export: Annotated[bool, typer.Option("--export", help="Write the winner as a bundle.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="The bundle's folder; bundles/SWEEP (-SIZE-PATCH) by default.")
    ] = None,
    size: SizeOption = None,
    patch: PatchOption = None,
    json_: JsonOption = False,
) -> None:
    """Show the best cell of a sweep, and export it: its weights, or with --size its recipe for another size."""
    from sweeps.results.ranking import rank_in
    from sweeps.results.winner import RankedSweep, export_winner, transfer_winner
    from sweeps.storage.open_storage import open_storage

    check_metric(by)
    if (size or patch) and not export:
        raise input_error("--size and --patch say what to export the winner for", hint="add --export")
    where = open_storage(storage)
    found, made, events = recorded(where, name)
    rows = rank_in(where, made, events, by)
    if rows[0].value is None:
        raise input_error(f"no cell of {found} has a value yet", hint=f"mpdit status {found}")
    bundle, moved = None, transfer_winner(made, rows[0], size, patch) if size or patch else None
    if moved and moved.target.model.shape == moved.source.model.shape and patch in (None, moved.source.model.patch):
        moved = None  # the winner as it is, with its weights
    if export:
        name = f"{found}-{moved.name.replace('/', '-')}" if moved else found
        bundle = export_winner(where, RankedSweep(made, events, rows), output or Path("bundles") / name, moved)
    if moved and moved.warnings:
        print("\n".join(moved.warnings), file=sys.stderr)
    if json_:
        document = {**rows[0].as_dict(), "bundle": str(bundle) if bundle else None}
        print(json.dumps(document | ({"transfer": moved.as_dict()} if moved else {}), indent=2))
        return
    _print_ranking(made, events, rows, by, 1)
    if open_ends := sum(row.is_open for row in rows):
        print(f"the best so far: {open_ends} of {len(rows)} cells are still to be scored")
    if moved:
        print(f"\nwritten to {bundle}, a recipe for {moved.name} without weights yet:\n  mpdit train {bundle}")
    elif bundle:
        print(f"\nwritten to {bundle}:")
        print(f'  python -c "import mpdit; model, recipe = mpdit.load({str(bundle)!r})"')
        print(f"  mpdit sample {bundle} -o grid.png\n  mpdit train {bundle}")


def _read_plan(file: str, settings: list[str] | None, known: "Iterable[str]" = ()) -> "Plan":
    from sweeps.planning.plan import make_plan
    from sweeps.spec.reading import read_spec, sweep_file

    return make_plan(read_spec(sweep_file(file), settings), known=known)


def recorded(storage: "Storage", name: str | None) -> "tuple[str, Plan, list[Event]]":
    """The plan and the events of a sweep in the storage."""
    from sweeps.planning.plan import make_plan
    from sweeps.spec.reading import read_spec
    from sweeps.storage.ledger import read

    found = storage.find_sweep(name)
    events = read(storage.ledger(found))
    return found, make_plan(read_spec(storage.spec(found)), events), events


def _print_ranking(made: "Plan", events: "list[Event]", rows: "list[Row]", asked: str | None, top: int | None) -> None:
    from cli.tables import ranking_table
    from pipelines.scoring.metrics.registry import METRICS
    from sweeps.results.ranking import noise_floor
    from sweeps.results.seed_spread import spread_said

    by = METRICS[asked or made.spec.metrics[0]]
    if all(row.value is None and row.is_open for row in rows):
        print(f"none of the {len(rows)} cells of {made.spec.name} has a value yet; see: mpdit status {made.spec.name}")
        return
    print(ranking_table(rows[:top], list(made.spec.axes)))
    if top and len(rows) > top:
        tied = sum(row.tied_with_best for row in rows[top:])
        print(f"… and {len(rows) - top} more" + (f", {tied} of them not to be told from the best" if tied else ""))
    if by.larger_is_better:
        print(f"{by.name}: higher is better")
    if any(row.tied_with_best for row in rows[:top]):
        print("=  cannot be told from the best at these errors; needs: what would tell them")
        print("   (cells of the best's own training share its noise: smaller gaps tell them)")
    if any(row.pareto for row in rows[:top]):
        print("*  on the Pareto front: no other cell is better in " + " and ".join(made.spec.metrics))
    if any(row.feasible is False for row in rows[:top]):
        print("!  breaks a constraint: " + ", ".join(made.spec.constraints))
    if any(row.other_code for row in rows[:top]):
        print(f"~  trained by other code than the best: mpdit sweep {made.spec.name} --reuse same-code trains it again")
    if by.has_folds and len(made.trials) > 1 and {row.seeds for row in rows if row.value is not None} == {1}:
        print("±  standard error; a training seed may move it by more: sweep seed: [0, 1, 2]")
    if len(made.trials) > 1 and rows[0].seed_spread is not None:
        print(spread_said(rows[0].seed_spread, rows[0].seed_spread_from or "").replace(": ", ":\n   ", 1))
    floor = noise_floor(events)
    if by.has_folds and floor is not None:
        print(f"noise floor: {floor:.3f}, what real images would score with as many samples")


def _counted(made: "Plan", events: "list[Event]", alive: bool = False) -> str:
    """How many trials have each status, as text."""
    from sweeps.results.trial_states import trial_states

    counts = Counter(state.status for state in trial_states(made, events, alive).values())
    return f"{len(made.trials)} trials: " + ", ".join(f"{count} {status}" for status, count in counts.most_common())


def _print_failures(made: "Plan", events: "list[Event]", storage: "Storage") -> None:
    from sweeps.results.trial_states import trial_states

    for state in trial_states(made, events, alive=False).values():
        if state.status.is_fault:
            storage.bring(state.trial.id, small=True)
            log = storage.trial(state.trial.id) / "log.txt"
            print(f"\n{state.trial.id}: {state.status}: {state.reason}\n  {log}", file=sys.stderr)
            last = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.exists() else []
            print("\n".join(f"    {line}" for line in last), file=sys.stderr)
