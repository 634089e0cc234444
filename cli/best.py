"""The command for the winner of a sweep: show it, export it, train it on."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    DEFAULT_STORAGE,
    ByOption,
    JsonOption,
    PatchOption,
    SizeOption,
    StorageOption,
    SweepArgument,
    check_metric,
    storage_option,
)
from cli.results import print_ranking, recorded, situation_of
from cli.sweeping import conduct
from mpdit.errors import input_error

if TYPE_CHECKING:
    from sweeps.advice.registry import Situation
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
    if continue_:
        _continue(where, situation_of(where, made, events, rows, storage), continue_, storage)
        return
    alone = best_weights(made, events, rows)
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
        advice = [one.as_dict() for one in advise(situation_of(where, made, events, rows, storage))]
        document = {**rows[0].as_dict(), "bundle": str(bundle) if bundle else None, "advice": advice}
        document["weights"] = {"trial": alone.trial, "params": alone.params, "confirmed": alone.confirmed}
        print(json.dumps(document | ({"transfer": moved.as_dict()} if moved else {}), indent=2))
        return
    print_ranking(made, events, rows, by, 1)
    if alone.trial != rows[0].trial:
        print(
            f"the best weights are another training's: {alone.trial}, {alone.confirmed:.3f} on fresh noise\n"
            f"   mpdit best {found} --weights{storage_option(storage)}"
        )
    if open_ends := sum(row.is_open for row in rows):
        print(f"the best so far: {open_ends} of {len(rows)} cells are still to be scored")
    if moved:
        print(f"\nwritten to {bundle}, a recipe for {moved.name} without weights yet:\n  mpdit train {bundle}")
    elif bundle:
        print(f"\nwritten to {bundle}:\n{_uses(bundle)}")


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
