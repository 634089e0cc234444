"""Begin a search with what other sweeps of the storage have found best: `search.prior: storage`.

Their distances are not told to the search, for they may be of other lengths or numbers of samples; where the optimum
lies carries over, how low it is does not.
"""

from collections.abc import Iterator

from mpdit.errors import InputError
from sweeps.planning.plan import make_plan
from sweeps.results.ranking import Row, rank
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import read_spec
from sweeps.spec.space import Point, unique
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import read

MOST = 1 / 4  # of the points of a search


def prior_points(spec: SweepSpec, storage: Storage) -> list[Point]:
    """The best points of the storage's other sweeps, of those of the newest sweep first; at most a quarter of a search.

    A sweep counts that ranks by the same metric on the same data and has a searched axis in common. An axis that it
    does not have, or whose best value this search does not hold, has the recipe's own value, or else its middle.
    """
    most = int(MOST * (spec.search.trials or 0))
    return list(unique(_best_points(spec, storage)))[:most]


def _best_points(spec: SweepSpec, storage: Storage) -> Iterator[Point]:
    for name in storage.sweep_names():
        if name == spec.name:
            continue
        try:
            other = read_spec(storage.spec(name))
            is_like = other.recipe.data == spec.recipe.data and other.metrics[0] == spec.metrics[0]
            best = _best(other, storage) if is_like else None
        except InputError:  # of a plug-in that is gone, or of another release
            continue
        if best is None:
            continue
        domains = spec.space.domains
        shared = {axis: best.params[axis] for axis in domains if axis in best.params}
        held = {axis: value for axis, value in shared.items() if domains[axis].holds(value)}
        if held:
            yield _filled(spec, held)


def _best(spec: SweepSpec, storage: Storage) -> Row | None:
    events = read(storage.ledger(spec.name))
    rows = rank(make_plan(spec, events, storage.trial_names()), events)
    return next((row for row in rows if row.is_scored and row.value is not None), None)


def _filled(spec: SweepSpec, held: Point) -> Point:
    """The point with these values, and on the other axes the recipe's own, or else the middle."""
    space = spec.space
    own = {
        axis: space.own[axis] if domain.holds(space.own[axis]) else domain.at(0.5)
        for axis, domain in space.domains.items()
    }
    return space.active(own | held)
