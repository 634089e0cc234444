"""Commands that show the results of a sweep: where its trials stand, its ranking, its best cell."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import (
    DEFAULT_STORAGE,
    INTERRUPTED,
    ByOption,
    CsvOption,
    JsonOption,
    StorageOption,
    SweepArgument,
    check_metric,
    storage_option,
)

if TYPE_CHECKING:
    from sweeps.advice.registry import Situation
    from sweeps.planning.plan import Plan
    from sweeps.results.ranking import Row
    from sweeps.results.winner import RankedSweep
    from sweeps.storage.events import Event
    from sweeps.storage.layout import Storage


def status(
    name: SweepArgument = None,
    storage: StorageOption = DEFAULT_STORAGE,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it until the sweep ends.")] = False,
    json_: JsonOption = False,
) -> None:
    """Show where each trial of a sweep stands."""
    from cli.display.tables import trials_table
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
    print(f"{found}: {'running' if alive else 'not running'}; {counted(made, events, alive)}\n")
    print(trials_table(rows, made.spec.training_axes))


def _watch(where: "Storage", name: str) -> None:
    from rich.console import Console

    from cli.display.progress import watch
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
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table for pandas, DuckDB …")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only the best N.")] = None,
    by: ByOption = None,
    columns: Annotated[str | None, typer.Option(metavar="M,M,…", help="Metrics to show besides.")] = None,
) -> None:
    """List the cells of a sweep, best first; of several sweeps in one table, and where the sweeps differ."""
    from cli.display.tables import ranking_csv, write_parquet
    from sweeps.results.ranking import rank_in
    from sweeps.results.side_by_side import one_table
    from sweeps.results.winner import RankedSweep
    from sweeps.storage.open_storage import open_storage

    check_metric(by)
    shown = [name for name in (columns or "").split(",") if name]
    where = open_storage(storage)
    found = [recorded(where, name) for name in dict.fromkeys(names or [None])]  # type: ignore[list-item]
    ranked = [RankedSweep(made, events, rank_in(where, made, events, by, shown)) for _, made, events in found]
    if optuna:
        from sweeps.results.importance import write_study

        for one in ranked:
            name = optuna if len(ranked) < 2 else optuna.with_stem(f"{optuna.stem}-{one.plan.spec.name}")
            write_study(one.plan, one.rows[:top], name)
    first, several = ranked[0], one_table(ranked)[:top] if len(ranked) > 1 else []
    sweeps, rows = [name for name, _ in several], [row for _, row in several] or first.rows[:top]
    if parquet:
        write_parquet(parquet, rows, sweeps)
    if json_:
        documents = [row.as_dict() for row in rows]
        named = [{"sweep": name, **row} for name, row in zip(sweeps, documents, strict=True)] if sweeps else documents
        print(json.dumps(named, indent=2))
    elif csv_:
        print(ranking_csv(rows, sweeps), end="")
    elif several:
        _print_side_by_side(ranked, rows, sweeps)
    else:
        print_ranking(first.plan, first.events, first.rows, by, top)
        if by is None:
            print_answers(where, first.plan, first.events, first.rows, storage)


def _print_side_by_side(ranked: "list[RankedSweep]", rows: "list[Row]", sweeps: list[str]) -> None:
    from cli.display.tables import ranking_table
    from sweeps.results.side_by_side import differences, measured_on_other_data

    print(ranking_table(rows, list(dict.fromkeys(axis for one in ranked for axis in one.plan.spec.axes)), sweeps))
    if rows[0].kind.has_folds:
        print("±  standard error; another training seed moves a value besides: no smaller gap tells two sweeps apart")
    if measured_on_other_data(ranked):
        print("the values are distances to different data: they cannot be compared")
    print("\n".join(["\nwhere they differ:", *(f"  {line}" for line in differences(ranked))]))


def recorded(storage: "Storage", name: str | None) -> "tuple[str, Plan, list[Event]]":
    """The plan and the events of a sweep in the storage."""
    from sweeps.planning.plan import make_plan
    from sweeps.spec.reading import read_spec
    from sweeps.storage.ledger import read

    found = storage.find_sweep(name)
    events = read(storage.ledger(found))
    return found, make_plan(read_spec(storage.spec(found)), events), events


def print_ranking(made: "Plan", events: "list[Event]", rows: "list[Row]", asked: str | None, top: int | None) -> None:
    from cli.display.tables import ranking_table
    from pipelines.scoring.metrics.registry import METRICS
    from sweeps.results.ranking import noise_floor, winner_said
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
        print(
            "~  trained by other code than the best of its kinds: "
            f"mpdit sweep {made.spec.name} --reuse same-code trains it again"
        )
    if by.has_folds and len(made.trials) > 1 and {row.seeds for row in rows if row.value is not None} == {1}:
        print("±  standard error; a training seed may move it by more: sweep seed: [0, 1, 2]")
    if len(made.trials) > 1 and rows[0].seed_spread is not None:
        print(spread_said(rows[0].seed_spread, rows[0].seed_spread_from or "").replace(": ", ":\n   ", 1))
    if rows[0].confirmed is not None:
        print("again: the value on fresh noise, which did not choose the row")
    if changed := winner_said(rows):
        print(changed.replace(": ", ":\n   ", 1).replace(", and ", ",\n   and ", 1))
    floor = noise_floor(events)
    if by.has_folds and floor is not None:
        print(f"noise floor: {floor:.3f}, what real images would score with as many samples")


def print_answers(where: "Storage", made: "Plan", events: "list[Event]", rows: "list[Row]", storage: str) -> None:
    """Print the answer to each axis and the first advice."""
    from sweeps.advice.advise import in_words

    if lines := in_words(situation_of(where, made, events, rows, storage)):
        print("\n".join(["", *lines]))


def situation_of(where: "Storage", made: "Plan", events: "list[Event]", rows: "list[Row]", storage: str) -> "Situation":
    """What advice for a sweep of the storage follows from. storage: as the user wrote it."""
    from sweeps.advice.registry import Situation

    return Situation(made, rows, events, str(where.spec(made.spec.name)), storage_option(storage))


def situation_in(where: "Storage", plan: "Plan", storage: str) -> "Situation":
    """What advice for a sweep follows from, read anew from its storage."""
    from sweeps.results.ranking import rank_in
    from sweeps.storage.ledger import read

    events = read(where.ledger(plan.spec.name))
    return situation_of(where, plan, events, rank_in(where, plan, events), storage)


def counted(made: "Plan", events: "list[Event]", alive: bool = False) -> str:
    """How many trials have each status, as text."""
    from sweeps.results.trial_states import trial_states

    counts = Counter(state.status for state in trial_states(made, events, alive).values())
    return f"{len(made.trials)} trials: " + ", ".join(f"{count} {status}" for status, count in counts.most_common())
