"""Commands that conclude from a sweep: its winner, what to do next, and its finalists."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    DEFAULT_STORAGE,
    AddressOption,
    ByOption,
    JsonOption,
    PatchOption,
    SizeOption,
    StorageOption,
    SweepArgument,
    check_metric,
    storage_option,
)
from cli.results import print_ranking, recorded, situation_in, situation_of
from cli.sweeping import conduct
from mpdit.errors import input_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipelines.transfer import Transfer
    from sweeps.advice.registry import Advice, Situation
    from sweeps.results.ranking import Row
    from sweeps.storage.layout import Storage


def best(
    name: SweepArgument = None,
    storage: StorageOption = DEFAULT_STORAGE,
    by: ByOption = None,
    weights: Annotated[
        bool, typer.Option("--weights", help="The one training with the best weights, not the best mean of seeds.")
    ] = False,
    export: Annotated[bool, typer.Option("--export", help="Write the winner as a bundle.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The bundle's folder; bundles/SWEEP (-SIZE-PATCH) by default.")
    ] = None,
    size: SizeOption = None,
    patch: PatchOption = None,
    continue_: Annotated[
        str | None, typer.Option("--continue", metavar="STEPS|Kx", help="Train the best point on, to so many steps.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Show the best cell of a sweep, and export it: its weights, or with --size its recipe for another size."""
    from sweeps.advice.advise import advise
    from sweeps.results.best_weights import best_weights
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
    situation, alone = situation_of(where, made, events, rows, storage), best_weights(made, events, rows)
    if continue_:
        _continue(where, situation, continue_, storage)
        return
    if weights:
        rows = [alone, *(row for row in rows if row.params != alone.params)]
    bundle, moved = None, transfer_winner(made, rows[0], size, patch) if size or patch else None
    if moved and moved.target.model.shape == moved.source.model.shape and patch in (None, moved.source.model.patch):
        moved = None  # the winner as it is, with its weights
    if export:
        name = f"{found}-{moved.name.replace('/', '-')}" if moved else found
        bundle = export_winner(where, RankedSweep(made, events, rows), output or Path("bundles") / name, moved)
    if moved and moved.warnings:
        print("\n".join(moved.warnings), file=sys.stderr)
    if json_:
        advice = [one.as_dict() for one in advise(situation)]  # of the whole sweep, also for --weights
        document = {**rows[0].as_dict(), "bundle": str(bundle) if bundle else None, "advice": advice}
        document["weights"] = {"trial": alone.trial, "params": alone.params, "confirmed": alone.confirmed}
        print(json.dumps(document | ({"transfer": moved.as_dict()} if moved else {}), indent=2))
        return
    print_ranking(made, events, rows, by, 1)
    for line in _besides(found, rows, alone, storage):
        print(line)
    if bundle:
        print(_written(bundle, moved))


def _besides(name: str, rows: "list[Row]", alone: "Row", storage: str) -> "Iterator[str]":
    """What is to be known beside the best row: that other weights are better, and that cells are still open."""
    if alone.trial != rows[0].trial:
        yield f"the best weights are another training's: {alone.trial}, {alone.confirmed:.3f} on fresh noise"
        yield f"   mpdit best {name} --weights{storage_option(storage)}"
    if open_ends := sum(row.is_open for row in rows):
        yield f"the best so far: {open_ends} of {len(rows)} cells are still to be scored"


def _written(bundle: Path, moved: "Transfer | None") -> str:
    """What a bundle is, and what can be done with it."""
    if moved:
        return f"\nwritten to {bundle}, a recipe for {moved.name} without weights yet:\n  mpdit train {bundle}"
    return f"\nwritten to {bundle}:\n{_uses(bundle)}"


def _continue(where: "Storage", situation: "Situation", length: str, storage: str) -> None:
    """Train the best point on, in a sweep of its own."""
    from cli.display.tables import duration
    from sweeps.advice.longer import check_can_go_on, longer_settings, longer_steps
    from sweeps.advice.next_steps import expected_seconds
    from sweeps.execution.driver import RunOptions
    from sweeps.spec.model import Notify

    row = situation.rows[0]
    recipe = next(trial.recipe for trial in situation.plan.trials if trial.id == row.trial)
    steps = longer_steps(length, recipe.steps)
    plan = situation.planned(longer_settings(situation, row, steps))
    seconds = expected_seconds(plan, where)
    check_can_go_on(recipe, steps, "" if seconds is None else f", about {duration(seconds)}")
    conduct(plan, where, RunOptions(), storage, Notify())


def _uses(bundle: Path) -> str:
    """What can be done with a bundle, as commands."""
    load = f'python -c "import mpdit; model, recipe = mpdit.load({str(bundle)!r})"'
    return f"  {load}\n  mpdit sample {bundle} -o grid.png\n  mpdit train {bundle}"


def suggest(
    name: SweepArgument = None,
    storage: StorageOption = DEFAULT_STORAGE,
    hours: Annotated[float | None, typer.Option(min=0.0, help="Only what fits into so many hours.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write a sweep file that follows the first advice.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file that --apply writes; SWEEP-next.yaml by default.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Say how the next hours are best spent on a sweep: extend an axis, add seeds, train longer, or stop."""
    from cli.display.tables import duration
    from sweeps.advice.next_steps import priced, within
    from sweeps.storage.open_storage import open_storage

    where = open_storage(storage)
    situation = _finished(where, name, storage)
    advice = within(priced(situation, where), None if hours is None else hours * 3600)
    if apply:
        _apply(situation, advice, output or Path(f"{situation.name}-next.yaml"))
    if json_:
        print(json.dumps([one.as_dict() | {"cost_seconds": one.cost_seconds} for one in advice], indent=2))
        return
    print("\n".join(answer.text for answer in situation.answers))
    for number, one in enumerate(advice, start=1):
        cost = "" if one.cost_seconds is None else f"; about {duration(one.cost_seconds)}"
        print(f"\n{number}. {one.kind}: {one.text}{cost}\n   {one.command}")
    if not advice:
        print(f"\nnothing that is worth it fits into {hours:g} hours; without --hours: mpdit suggest {situation.name}")


def confirm(
    name: SweepArgument = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the best points.")] = 3,
    seeds: Annotated[str, typer.Option(metavar="S,S,…", help="Training seeds; known ones are not trained again.")] = (
        "0,1,2"
    ),
    storage: StorageOption = DEFAULT_STORAGE,
    address: AddressOption = None,
) -> None:
    """Train the best points of a sweep with several seeds, and score them: a sweep of its own, SWEEP-confirm."""
    from sweeps.advice.finalists import confirming_settings
    from sweeps.execution.driver import RunOptions
    from sweeps.spec.model import Notify
    from sweeps.storage.open_storage import open_storage

    where = open_storage(storage)
    situation = _finished(where, name, storage)
    settings = confirming_settings(situation, top, _seeds(seeds))
    plan = situation.planned(settings)
    conduct(plan, where, RunOptions(address=address), storage, Notify())


def _finished(where: "Storage", name: str | None, storage: str) -> "Situation":
    """The situation of a sweep that does not run and has scored cells. Raises InputError for any other."""
    found, made, _ = recorded(where, name)
    if where.is_running(found):
        raise input_error(f"{found} is still running", hint=f"mpdit status {found} --watch, then again")
    situation = situation_in(where, made, storage)
    if not situation.scored:
        raise input_error(f"no cell of {found} has been scored in full yet", hint=situation.sweep_command(()))
    if len(made.spec.objective) > 1:
        hint = f"mpdit rank {found} shows the Pareto front"
        raise input_error(f"{found} has several objectives, which no one point settles", hint=hint)
    return situation


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts) or len(set(parts)) < len(parts):
        raise input_error("seeds are whole numbers, each once", given=f"--seeds {text}", allowed="as 0,1,2")
    return [int(part) for part in parts]


def _apply(situation: "Situation", advice: "list[Advice]", path: Path) -> None:
    from pipelines.yaml_file import write_yaml

    first = next((one for one in advice if one.settings), None)
    if first is None:
        raise input_error(f"no advice changes the sweep file of {situation.name}", hint="leave out --apply")
    if path.exists():
        raise input_error(f"{path} is there already", given=path, hint="another name: -o FILE")
    write_yaml(path, situation.planned(first.settings).spec.model_dump())
    print(f"{path}: {first.text}\n  mpdit sweep {path}{situation.options}", file=sys.stderr)
