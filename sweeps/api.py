"""What `mpdit sweep` and `mpdit rank` do, as two functions: `from sweeps import run, rank`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.yaml_file import Document, read_yaml
from sweeps.execution import driver
from sweeps.execution.driver import RunOptions, SweepEnd
from sweeps.execution.notify import Notifier, call_each
from sweeps.execution.recorder import Listener
from sweeps.planning.faults import located
from sweeps.planning.plan import make_plan
from sweeps.planning.reuse import Reuse
from sweeps.results import ranking
from sweeps.results.ranking import Row
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import checked, read_spec, sweep_file
from sweeps.storage.ledger import read
from sweeps.storage.open_storage import open_storage

DEFAULT_STORAGE = Path("runs")


def run(  # noqa: PLR0913  (public: its options are named)
    sweep: SweepSpec | Mapping[str, Any] | str | Path,
    storage: str | Path = DEFAULT_STORAGE,
    *,
    settings: Sequence[str] = (),
    max_concurrent: int | None = None,
    fail_fast: bool = False,
    reuse: str = "any",
    listener: Listener | None = None,
) -> SweepEnd:
    """Run a sweep, or continue it: what is done is reused, what is new is run.

    sweep: its fields, the path of its file, or the name of one that comes with mpdit. settings: changes, as
    `["recipe.steps=100"]`. reuse: which finished trials are taken as they are: any, same-code
    or none. listener: called with each ledger event. Raises InputError for what must not start.
    """
    if isinstance(sweep, (str, Path)):
        document = read_yaml(sweep_file(str(sweep)))
    else:
        document = Document(sweep.model_dump() if isinstance(sweep, SweepSpec) else dict(sweep), "the sweep", {})
    spec, document = checked(document, list(settings))
    where = open_storage(storage)
    past = read(where.ledger(spec.name))
    with located(document):
        plan = make_plan(spec, past, where.trial_names())
    with Notifier(plan, past, spec.notify) as notifier:
        listeners = call_each(notifier, listener) if listener else notifier
        return driver.run(plan, where, listeners, RunOptions(max_concurrent, fail_fast, reuse=Reuse(reuse)))


def rank(
    sweep: str | None = None, storage: str | Path = DEFAULT_STORAGE, *, by: str | None = None, top: int | None = None
) -> list[Row]:
    """The cells of a sweep (the newest by default), best first. Raises InputError where there is none."""
    where = open_storage(storage)
    name = where.find_sweep(sweep)
    events = read(where.ledger(name))
    plan = make_plan(read_spec(where.spec(name)), events)
    return ranking.rank_in(where, plan, events, by)[:top]
