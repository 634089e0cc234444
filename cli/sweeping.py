"""Commands that run a sweep and plan one."""

import json
import shutil
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import (
    DEFAULT_STORAGE,
    FAILED,
    INTERRUPTED,
    AddressOption,
    CsvOption,
    InceptionOption,
    JsonOption,
    PatchOption,
    ReuseOption,
    SetOption,
    SizeOption,
    StorageOption,
    SweepFile,
    UntilOption,
    check_until,
    name_inception_weights,
    storage_option,
)
from cli.results import counted, print_answers, print_ranking, situation_in
from mpdit.errors import input_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pipelines.yaml_file import Document
    from sweeps.execution.driver import RunOptions, SweepEnd
    from sweeps.planning.plan import Estimate, Plan, Trial
    from sweeps.spec.model import Notify
    from sweeps.storage.events import Event, TrialEnded
    from sweeps.storage.layout import Storage

SHOWN_AT_THE_END = 10
LAST_LINES = 6  # of a failing trial's log


def sweep(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE|NAME]", help="A sweep file, or one that comes with mpdit.")
    ] = None,
    storage: StorageOption = DEFAULT_STORAGE,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time; the machine's own number by default.")
    ] = None,
    set_: SetOption = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop the sweep when a trial fails.")] = False,
    inception_weights: InceptionOption = None,
    address: AddressOption = None,
    reuse: ReuseOption = "any",
    until: UntilOption = None,
    hours: Annotated[float | None, typer.Option(min=0.0, help="budget.hours: how long all starts may take.")] = None,
    axis: Annotated[
        list[str] | None, typer.Option(metavar="PATH=V,V,…", help="Without FILE: an axis; may be repeated.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME|FOLDER", help="Without FILE: the data; digits by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Without FILE: of each training; as suits the data.")] = None,
    name: Annotated[str | None, typer.Option(help="Without FILE: the sweep's name; quick by default.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Serve a page that follows it, as `mpdit watch`.")] = False,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Without FILE: keep the sweep as a file.")] = None,
) -> None:
    """Run a sweep, or continue it: what is done is reused, what is new is run. Without a file, --axis says what."""
    from sweeps.execution.driver import RunOptions
    from sweeps.planning.reuse import Reuse
    from sweeps.storage.open_storage import open_storage

    name_inception_weights(inception_weights)
    check_until(until)
    settings = [*(set_ or []), *([f"budget.hours={hours}"] if hours else [])]
    quick = {"--axis": axis, "--data": data, "--steps": steps, "--name": name, "--save": save}
    if file is None:
        made = _planned(_of_command_line(quick), settings)
    elif given := [option for option, value in quick.items() if value]:
        hint = "--set changes a file: --set axes.optimizer.lr=[0.03,0.1] --set recipe.steps=450 --set name=NAME"
        raise input_error(f"{given[0]} is for a sweep without a file", given=f"{file} {given[0]}", hint=hint)
    else:
        made = _read_plan(file, settings)
    options, where = RunOptions(max_concurrent, fail_fast, address=address, reuse=Reuse(reuse)), open_storage(storage)
    with _watched(where, made.spec.name) if watch else nullcontext():
        if until:
            _conduct_until_settled(made, where, options, storage)
        else:
            conduct(made, where, options, storage, made.spec.notify)


@contextmanager
def _watched(where: "Storage", name: str) -> "Iterator[None]":
    from sweeps.report.live_page import watched

    with watched(where, name, port=0) as address:
        print(f"watch it at {address}", file=sys.stderr, flush=True)
        yield


def conduct(plan: "Plan", where: "Storage", options: "RunOptions", storage: str, notify: "Notify") -> None:
    """Run a sweep with its display, show its ranking, and end with its exit code.

    storage: as the user wrote it. notify: whom to notify; only ever from the user's own file.
    """
    from dataclasses import replace

    from sweeps.storage.trial_status import TrialStatus

    plan, end = _run_shown(plan, where, options, notify)
    _conclude(plan, end, where, storage)
    if plan.spec.confirm.seeds and end.outcome is TrialStatus.COMPLETED:
        conduct(_finalists(plan, where, storage), where, replace(options, only=None, again=()), storage, notify)


def _finalists(plan: "Plan", where: "Storage", storage: str) -> "Plan":
    """The sweep of the best points with the further seeds that `confirm` asks for."""
    from sweeps.advice.finalists import confirming_settings, more_seeds, points

    situation, spec = situation_in(where, plan, storage), plan.spec
    top = min(spec.confirm.best, len(points(situation)))
    return situation.planned(
        confirming_settings(situation, top, more_seeds(spec.seeds, len(spec.seeds) + spec.confirm.seeds))
    )


def _conduct_until_settled(plan: "Plan", where: "Storage", options: "RunOptions", storage: str) -> None:
    """Run a sweep, and go on with what its advice says, until nothing is left that is worth it or fits the budget."""
    from sweeps.advice.next_steps import first_to_follow, priced, seconds_left, why_it_ends, within

    if plan.spec.budget.hours is None:
        raise input_error("--until settled needs to know how long it may take", hint="--hours 1, or budget.hours")
    notify, hours = plan.spec.notify, plan.spec.budget.hours
    while True:
        plan, end = _run_shown(plan, where, options, notify)
        _conclude(plan, end, where, storage, is_last=False)
        situation = situation_in(where, plan, storage)
        advised = priced(situation, where)
        following = first_to_follow(within(advised, seconds_left(where, hours, plan)), situation)
        if following is None:
            print(f"\n{why_it_ends(advised)}", file=sys.stderr)
            return
        advice, plan = following
        print(f"\n{advice.kind}: {advice.text}\n", file=sys.stderr)


def _run_shown(plan: "Plan", where: "Storage", options: "RunOptions", notify: "Notify") -> "tuple[Plan, SweepEnd]":
    """Run a sweep with its display; returns the plan, which a search has completed, and how the sweep ended."""
    from rich.console import Console

    from cli.display.progress import SweepProgress
    from sweeps.execution.driver import SweepEnd, run
    from sweeps.execution.notify import Notifier, call_each
    from sweeps.planning.known_work import known_events
    from sweeps.planning.plan import make_plan
    from sweeps.planning.reuse import Reuse
    from sweeps.storage.ledger import read
    from sweeps.storage.trial_status import TrialStatus

    past = read(where.ledger(plan.spec.name))
    plan = make_plan(plan.spec, past, where.trial_names())
    if options.reuse is Reuse.ANY:
        past = known_events(where, plan)  # what other sweeps have done counts as done from the start
        _warn_of_other_code(plan, past)
    try:
        with SweepProgress(plan, past, Console(stderr=True)) as progress, Notifier(plan, past, notify) as notifier:
            return plan, run(plan, where, call_each(progress, notifier), options)
    except KeyboardInterrupt:  # before or after Ray Tune handles it
        return plan, SweepEnd(TrialStatus.INTERRUPTED, 0)


def _conclude(plan: "Plan", end: "SweepEnd", where: "Storage", storage: str, is_last: bool = True) -> None:
    """Say how a sweep ended, show its ranking and, if that is the last one, what to do next."""
    from sweeps.results.ranking import rank_in
    from sweeps.storage.ledger import read
    from sweeps.storage.trial_status import TrialStatus

    name, option = plan.spec.name, storage_option(storage)
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
    events = read(where.ledger(name))
    rows = rank_in(where, plan, events)
    print_ranking(plan, events, rows, None, SHOWN_AT_THE_END)
    print_answers(where, plan, events, rows, storage)
    program = "mpdit" if shutil.which("mpdit") else sys.argv[0]
    steps = (f"rank {name}", f"report {name}", "ui", f"best {name} --export")
    if is_last:
        print("\n".join(["\nlook at it:", *(f"  {program} {step}{option}" for step in steps)]))
    if end.outcome is TrialStatus.FAILED:
        print(f"\n{counted(plan, events)}", file=sys.stderr)
        _print_failures(plan, events, where)
        print(f"\n  {program} retry {name} --failed{option}", file=sys.stderr)
        raise typer.Exit(FAILED)


def _warn_of_other_code(plan: "Plan", events: "list[Event]") -> None:
    from sweeps.planning.reuse import reuse_warning

    if warning := reuse_warning(plan, events):
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
    from cli.display.tables import plan_csv, plan_table, transfer_table
    from sweeps.execution.cluster import slots_here
    from sweeps.planning.known_work import cost_of, known_events, unfinished, untrained
    from sweeps.planning.plan import make_plan
    from sweeps.spec.reading import check_unchanged
    from sweeps.storage.open_storage import open_storage

    where = open_storage(storage)
    made = _read_plan(file, set_, where.trial_names())
    where.check()
    check_unchanged(where.spec(made.spec.name), made.spec)
    events = known_events(where, made)
    made = make_plan(made.spec, events, where.trial_names())
    _warn_of_other_code(made, events)
    remaining = unfinished(made, events)
    here, lack = slots_here(made.spec)
    if lack:
        print(f"on this machine {lack}\n", file=sys.stderr)
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
    document = _plan_document(made, {trial.id for trial in remaining}, cost)
    print(json.dumps(document | ({"transfer": saved.as_dict()} if saved else {}), indent=2))


def _plan_document(made: "Plan", waiting: set[str], cost: "Estimate") -> dict[str, Any]:
    """The plan as `--json` shows it. waiting: the trials that need any work."""
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
    return document | ({"open": made.open} if made.open else {})


def _measured(made: "Plan", trials: "list[Trial]", slots: int) -> "list[TrialEnded]":
    from sweeps.execution.timing_probe import measure

    return measure(made, trials, slots)


def _of_command_line(given: dict[str, Any]) -> "Document":
    """The sweep that the options say, kept as a file where that is asked for."""
    from sweeps.spec.template import quick_document, save_sweep_file

    if not given["--axis"]:
        raise input_error(
            "Missing argument: which sweep?",
            allowed="a sweep file, one that comes with mpdit, or --axis PATH=V,V,…",
            hint="mpdit sweep conditioning, or mpdit sweep --axis optimizer.lr=0.03,0.1",
        )
    document = quick_document(
        given["--name"] or "quick", given["--data"] or "digits", given["--steps"], given["--axis"]
    )
    if given["--save"]:
        _planned(document)  # what cannot be run is not kept
        save_sweep_file(given["--save"], document)
    return document


def _read_plan(file: str, settings: list[str] | None, known: "Iterable[str]" = ()) -> "Plan":
    from pipelines.yaml_file import read_yaml
    from sweeps.spec.reading import sweep_file

    return _planned(read_yaml(sweep_file(file)), settings or [], known)


def _planned(document: "Document", settings: "Sequence[str]" = (), known: "Iterable[str]" = ()) -> "Plan":
    from sweeps.planning.faults import located
    from sweeps.planning.plan import make_plan
    from sweeps.spec.reading import checked

    spec, document = checked(document, list(settings))
    with located(document):
        return make_plan(spec, known=known)


def _print_failures(made: "Plan", events: "list[Event]", storage: "Storage") -> None:
    from sweeps.results.trial_states import trial_states

    for state in trial_states(made, events, alive=False).values():
        if state.status.is_fault:
            storage.bring(state.trial.id, small=True)
            log = storage.trial(state.trial.id) / "log.txt"
            print(f"\n{state.trial.id}: {state.status}: {state.reason}\n  {log}", file=sys.stderr)
            last = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.exists() else []
            print("\n".join(f"    {line}" for line in last), file=sys.stderr)
