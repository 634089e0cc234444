"""Suggest the next point by an Optuna sampler, whose study is built again from the ledger each time and never stored.

Samplers that keep a state of their own (CMA-ES, the genetic ones) get it back: every past point is asked for and told
to them again, in its order. A sampler is seeded by the search's seed and the number of points before, so a suggestion
is a function of the ledger.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.scoring.metrics.registry import METRICS
from sweeps.search.observations import Observation
from sweeps.spec.consistency import is_number
from sweeps.spec.model import SweepSpec
from sweeps.spec.search_algorithm import SEARCHES, SamplerOptions
from sweeps.spec.space import Domain, Point, identity
from sweeps.storage.trial_status import TrialStatus

if TYPE_CHECKING:
    import optuna

ATTEMPTS = 20  # suggestions of points that are known already, after which a new one is drawn at random


def suggest(spec: SweepSpec, past: Sequence[Observation], prior: Sequence[Point] = ()) -> Point | None:
    """The next point of a search that learns; None when the space has no other. prior: what it begins with."""
    search, space = spec.search, spec.space
    known = {identity(one.point): one for one in past}
    if begin := next((point for point in prior if identity(point) not in known), None):
        return begin
    if len(past) < min(SEARCHES[search.algorithm].quasi_random_first, math.ceil((search.trials or 1) / 4)):
        sobol = space.quasi_random(len(past) + 1, search.seed)
        return next((point for point in sobol if identity(point) not in known), _untried(spec, known))
    for point in _suggestions(spec, past, known):
        if identity(point) not in known:
            return point
    return _untried(spec, known)


def _untried(spec: SweepSpec, known: dict[str, Observation]) -> Point | None:
    """A random point that is not known yet; None when there is none."""
    drawn = spec.space.random(len(known) + 1, spec.search.seed)
    return next((point for point in drawn if identity(point) not in known), None)


def _suggestions(spec: SweepSpec, past: Sequence[Observation], known: dict[str, Observation]) -> Iterator[Point]:
    """Yield the points that Optuna suggests; the result of one that is known is reported to it before the next."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental samplers, and of what they do where they have no model yet
        algorithm = SEARCHES[spec.search.algorithm]
        assert algorithm.sampler, "a search with fixed points suggests none"
        sampler = algorithm.sampler(_options(spec, len(past)))
        replayed = sampler if algorithm.keeps_state else optuna.samplers.RandomSampler(seed=0)
        directions = [METRICS[name].direction for name in spec.metrics]
        study = optuna.create_study(directions=directions, sampler=replayed)
        for one in sorted(past, key=lambda one: one.status is TrialStatus.RUNNING):
            study.enqueue_trial(encoded(spec, one.point))
            trial = study.ask()
            read_point(spec, trial)
            tell(study, trial, one)
        study.sampler = sampler
        for _ in range(ATTEMPTS):
            trial = study.ask()
            point = read_point(spec, trial)
            yield point
            tell(study, trial, known.get(identity(point), Observation(point, TrialStatus.FAILED)), repeated=True)


def _options(spec: SweepSpec, before: int) -> SamplerOptions:
    """The options of a sampler that suggests a point after so many others."""
    seed = (spec.search.seed * 1_000_003 + before) % 2**31
    conditional = any(domain.when for domain in spec.space.domains.values())
    return SamplerOptions(seed, spec.search.trials or 1, conditional)


def tell(study: "optuna.Study", trial: "optuna.Trial", one: Observation, repeated: bool = False) -> None:
    """Tell Optuna how a point ended: as complete, as pruned where it was stopped, or as failed.

    A running point stays open in the study, which keeps suggestions away from it; suggested once more, it counts as
    failed.
    """
    from optuna.trial import TrialState

    if one.status is TrialStatus.COMPLETED and one.values:
        for name, excess in one.limits.items():
            trial.set_constraint(name, excess)
        study.tell(trial, one.values)
    elif one.status is TrialStatus.STOPPED:
        for number, value in one.rungs:
            trial.report(value, number)
        study.tell(trial, state=TrialState.PRUNED)
    elif one.status is not TrialStatus.RUNNING or repeated:
        study.tell(trial, state=TrialState.FAIL)


def read_point(spec: SweepSpec, trial: "optuna.Trial") -> Point:
    """The point that Optuna suggests; an axis that is inactive there is not asked for."""
    space = spec.space
    point: Point = {}
    for axis, domain in space.domains.items():
        if space.is_active(axis, point):
            point[axis] = _read_axis(trial, axis, domain)
    return point


def _read_axis(trial: "optuna.Trial", axis: str, domain: Domain) -> Any:
    if domain.kind == "values":
        values = _ordered(domain)
        if all(map(is_number, values)):  # an ordered axis, so that a sampler sees neighbours
            return values[trial.suggest_int(axis, 0, len(values) - 1)]
        return values[trial.suggest_categorical(axis, list(range(len(values))))]
    low, high = domain.ends
    if domain.kind == "int":
        return trial.suggest_int(axis, int(low), int(high), step=int(domain.step or 1))
    return domain.on_step(trial.suggest_float(axis, low, high, log=domain.kind == "log_uniform", step=domain.step))


def encoded(spec: SweepSpec, point: Point) -> dict[str, Any]:
    """A point as Optuna knows it: listed values by their place in the list."""
    domains = spec.space.domains
    listed = {axis: domains[axis].kind == "values" for axis in point}
    return {axis: _ordered(domains[axis]).index(value) if listed[axis] else value for axis, value in point.items()}


def _ordered(domain: Domain) -> list[Any]:
    """The listed values: numbers by size, words in the order of the file."""
    values = domain.values or []
    return sorted(values) if all(map(is_number, values)) else list(values)
