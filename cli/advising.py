"""Commands that say what to do next: suggest."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEFAULT_STORAGE, JsonOption, StorageOption, SweepArgument
from mpdit.errors import input_error

if TYPE_CHECKING:
    from sweeps.advice.registry import Advice, Situation
    from sweeps.planning.plan import Plan
    from sweeps.results.ranking import Row
    from sweeps.storage.events import Event
    from sweeps.storage.layout import Storage


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
    from cli.results import recorded
    from sweeps.advice.next_steps import priced, within
    from sweeps.results.ranking import rank_in
    from sweeps.storage.open_storage import open_storage

    where = open_storage(storage)
    found, made, events = recorded(where, name)
    if where.is_running(found):
        raise input_error(f"{found} is still running", hint=f"mpdit status {found} --watch, then again")
    situation = situation_of(where, made, events, rank_in(where, made, events), storage)
    if not situation.scored:
        raise input_error(f"no cell of {found} has been scored in full yet", hint=situation.sweep_command(()))
    advice = within(priced(situation, where), None if hours is None else hours * 3600)
    if apply:
        _apply(situation, advice, output or Path(f"{found}-next.yaml"))
    if json_:
        print(json.dumps([one.as_dict() | {"cost_seconds": one.cost_seconds} for one in advice], indent=2))
        return
    print("\n".join(answer_lines(situation)))
    for number, one in enumerate(advice, start=1):
        cost = "" if one.cost_seconds is None else f"; about {duration(one.cost_seconds)}"
        print(f"\n{number}. {one.text}{cost}\n   {one.command}")
    if not advice:
        print(f"\nnothing that is worth it fits into {hours:g} hours; without --hours: mpdit suggest {found}")


def situation_of(where: "Storage", made: "Plan", events: "list[Event]", rows: "list[Row]", storage: str) -> "Situation":
    """What advice follows from, with commands that name the sweep's file in its storage."""
    from sweeps.advice.registry import Situation

    option = "" if storage == DEFAULT_STORAGE else f" --storage {storage}"
    return Situation(made, rows, events, str(where.spec(made.spec.name)), option)


def answer_lines(situation: "Situation") -> list[str]:
    """The answer to each axis, a line each."""
    return [answer.text for answer in situation.answers]


def _apply(situation: "Situation", advice: "list[Advice]", path: Path) -> None:
    from pipelines.yaml_file import write_yaml

    changes = next((one for one in advice if one.settings), None)
    changed = situation.changed(changes.settings) if changes else None
    if changes is None or changed is None:
        raise input_error(f"no advice changes the sweep file of {situation.name}", hint="leave out --apply")
    if path.exists():
        raise input_error(f"{path} is there already", given=path, hint="another name: -o FILE")
    write_yaml(path, changed.spec.model_dump())
    print(f"{path}: {changes.text}\n  mpdit sweep {path}{situation.options}", file=sys.stderr)
