"""Commands that say what to do next with a sweep, and that train its finalists."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEFAULT_STORAGE, AddressOption, JsonOption, StorageOption, SweepArgument
from cli.results import recorded, situation_in
from cli.sweeping import conduct
from mpdit.errors import input_error

if TYPE_CHECKING:
    from sweeps.advice.registry import Advice, Situation
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
