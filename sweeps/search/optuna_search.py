"""The next point to try, by Optuna: its study is built anew from what the ledger tells, and kept nowhere.

Optuna's samplers that keep a state of their own (CMA-ES, the genetic ones) get it back because every point of the past
is asked for and told again, in its order. A sampler is seeded by the search's seed and the number of points before: a
suggestion is a function of the ledger.
"""

import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING, Any

from sweeps.planning.plan import Plan, Trial
from sweeps.results.metrics import metrics_of
from sweeps.search.schedulers import score_of
from sweeps.spec.consistency import is_number
from sweeps.spec.model import SweepSpec
from sweeps.spec.space import Domain, Point, identity
from sweeps.storage.ledger import Event

if TYPE_CHECKING:
    import optuna

ATTEMPTS = 20  # suggestions of points that are known already, after which a new one is drawn at random
AT_FIRST = 8  # quasi-random points before TPE and GP begin to learn, or a quarter of all where that is less
GENERATION = 16  # points of a genetic algorithm's generation, or a quarter of all where that is less
BAD_ENDS = ("diverged", "failed", "out_of_memory")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tried:
    """What is known of a point: "running", or how it ended: "completed", "stopped", or "failed" without a value.

    values: one an objective, of its best cell. limits: each constrained metric less its limit, so that at most 0 is
    within. rungs: (number, value) of the scores on the way.
    """

    point: Point
    status: str
    values: list[float] | None = None
    limits: dict[str, float] = field(default_factory=dict)
    rungs: list[tuple[int, float]] = field(default_factory=list)


def suggest(spec: SweepSpec, tried: Sequence[Tried]) -> Point | None:
    """The next point of a search that learns; None when the space has no other."""
    search, space = spec.search, spec.space
    known = {identity(one.point): one for one in tried}
    at_first = (
        0 if search.algorithm in ("nsga2", "nsga3", "cmaes") else min(AT_FIRST, math.ceil((search.trials or 1) / 4))
    )
    if len(tried) < at_first:
        spread = space.quasi_random(len(tried) + 1, search.seed)
        return next((point for point in spread if identity(point) not in known), _untried(spec, known))
    for point in _suggestions(spec, tried, known):
        if identity(point) not in known:
            return point
    return _untried(spec, known)


def _untried(spec: SweepSpec, known: dict[str, Tried]) -> Point | None:
    drawn = spec.space.random(len(known) + 1, spec.search.seed)
    return next((point for point in drawn if identity(point) not in known), None)


def _suggestions(spec: SweepSpec, tried: Sequence[Tried], known: dict[str, Tried]) -> Iterator[Point]:
    """What Optuna would try next; when asked for more, it has been told again what is known of the one before."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental samplers, and of what they do where they have no model yet
        sampler = _sampler(spec, len(tried))
        keeps = spec.search.algorithm in ("cmaes", "nsga2", "nsga3")
        past = sampler if keeps else optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(directions=["minimize"] * len(spec.objective), sampler=past)
        for one in sorted(tried, key=lambda one: one.status == "running"):
            study.enqueue_trial(_written(spec, one.point))
            trial = study.ask()
            _read(spec, trial)
            _tell(study, trial, one)
        study.sampler = sampler
        for _ in range(ATTEMPTS):
            trial = study.ask()
            point = _read(spec, trial)
            yield point
            _tell(study, trial, known.get(identity(point), Tried(point, "failed")), repeated=True)


def _tell(study: "optuna.Study", trial: "optuna.Trial", one: Tried, repeated: bool = False) -> None:
    """How a point ended: diverged and failed ones have no value, stopped ones are pruned (their scores are no results).

    A running one stays open, and keeps others away; suggested once more, it counts as failed.
    """
    from optuna.trial import TrialState

    if one.status == "completed" and one.values:
        for name, excess in one.limits.items():
            trial.set_constraint(name, excess)
        study.tell(trial, one.values)
    elif one.status == "stopped":
        for number, value in one.rungs:
            trial.report(value, number)
        study.tell(trial, state=TrialState.PRUNED)
    elif one.status != "running" or repeated:
        study.tell(trial, state=TrialState.FAIL)


def _sampler(spec: SweepSpec, number: int) -> "optuna.samplers.BaseSampler":
    from optuna import samplers

    seed = (spec.search.seed * 1_000_003 + number) % 2**31
    population = max(4, min(GENERATION, (spec.search.trials or 1) // 4))
    match spec.search.algorithm:
        case "tpe":
            conditional = any(domain.when for domain in spec.space.domains.values())
            several = True if conditional else None
            return samplers.TPESampler(seed=seed, n_startup_trials=1, multivariate=several, group=conditional)
        case "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=1)
        case "cmaes":
            return samplers.CmaEsSampler(seed=seed, n_startup_trials=1, popsize=population)
        case "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=population)
        case _:
            return samplers.NSGAIIISampler(seed=seed, population_size=population)


def _read(spec: SweepSpec, trial: "optuna.Trial") -> Point:
    """The point that Optuna suggests, axis by axis: what is inactive is not asked for."""
    space = spec.space
    point: Point = {}
    for axis, domain in space.domains.items():
        if space.is_active(axis, point):
            point[axis] = _suggested(trial, axis, domain)
    return point


def _suggested(trial: "optuna.Trial", axis: str, domain: Domain) -> Any:
    if domain.kind == "values":
        values = ordered(domain)
        if all(map(is_number, values)):  # by rank, so that neighbours are known as such
            return values[trial.suggest_int(axis, 0, len(values) - 1)]
        return values[trial.suggest_categorical(axis, list(range(len(values))))]
    low, high = domain.ends
    if domain.kind == "int":
        return trial.suggest_int(axis, int(low), int(high), step=int(domain.step or 1))
    return domain.on_step(trial.suggest_float(axis, low, high, log=domain.kind == "log_uniform", step=domain.step))


def _written(spec: SweepSpec, point: Point) -> dict[str, Any]:
    """A point as Optuna knows it."""
    domains = spec.space.domains
    listed = {axis: domains[axis].kind == "values" for axis in point}
    return {axis: ordered(domains[axis]).index(value) if listed[axis] else value for axis, value in point.items()}


def ordered(domain: Domain) -> list[Any]:
    """The listed values: numbers by size, words as they are written."""
    values = domain.values or []
    return sorted(values) if all(map(is_number, values)) else list(values)


def tried(plan: Plan, events: Iterable[Event]) -> list[Tried]:
    """What the ledger tells of the points, in the order in which they were suggested."""
    lines: dict[str, list[Event]] = {}
    for line in events:
        if line["trial"]:
            lines.setdefault(line["trial"], []).append(line)
    groups: dict[str, list[Trial]] = {}
    space = plan.spec.space
    for trial in plan.trials:
        point = space.active({axis: trial.params[axis] for axis in space.domains})
        groups.setdefault(identity(point), []).append(trial)
    return [_told(plan, trials, [lines.get(trial.id, []) for trial in trials]) for trials in groups.values()]


def _told(plan: Plan, trials: list[Trial], lines: list[list[Event]]) -> Tried:
    """One point from its trials, a seed each: as bad as its worst seed, as good as the seeds' mean."""
    space, spec = plan.spec.space, plan.spec
    point = space.active({axis: trials[0].params[axis] for axis in space.domains})
    ends = [next((line for line in reversed(own) if line["event"] == "trial_ended"), None) for own in lines]
    outcomes = ["running" if end is None or end["outcome"] == "interrupted" else end["outcome"] for end in ends]
    if any(outcome in BAD_ENDS for outcome in outcomes):
        return Tried(point, "failed")
    if "stopped" in outcomes:
        return Tried(point, "stopped", rungs=_rungs(spec, lines))
    if "running" in outcomes:
        return Tried(point, "running")
    best = best_cell(spec, trials, lines)
    if best is None:
        return Tried(point, "failed")
    limits = {metric: best[metric] - limit for metric, limit in spec.limits.items()}
    return Tried(point, "completed", [best[metric] for metric in spec.metrics], limits)


def _rungs(spec: SweepSpec, lines: list[list[Event]]) -> list[tuple[int, float]]:
    found: dict[float, list[float]] = {}
    for line in (line for own in lines for line in own if line["event"] == "rung"):
        score = score_of(line, spec.metrics[0])
        if score:
            found.setdefault(line["share"], []).append(score.value)
    return [(number, mean(values)) for number, (_, values) in enumerate(sorted(found.items()), start=1)]


def best_cell(spec: SweepSpec, trials: Sequence[Trial], lines: Sequence[Sequence[Event]]) -> dict[str, float] | None:
    """Every metric of a point's best cell, the mean over its seeds; best by the first objective, constraints first.

    Where cells were scored in several rounds, those of the first, which all points have.
    """
    asked = {*spec.metrics, *spec.limits}
    cells: dict[str, list[dict[str, float]]] = {}
    fewest = min((_samples(line) for own in lines for line in own if line["event"] == "cell"), default=0)
    for trial, own in zip(trials, lines, strict=True):
        for line in own:
            if line["event"] == "cell" and _samples(line) == fewest:
                found = metrics_of(trial, line, own, asked)
                known = {metric: value for metric, value in found.items() if value is not None and math.isfinite(value)}
                if len(known) == len(asked):
                    cells.setdefault(line["cell"], []).append(known)
    means = [
        {metric: mean(one[metric] for one in seeds) for metric in seeds[0]}
        for seeds in cells.values()
        if len(seeds) == len(trials)
    ]

    def order(cell: dict[str, float]) -> tuple[bool, float]:
        return any(cell[metric] > limit for metric, limit in spec.limits.items()), cell[spec.metrics[0]]

    return min(means, key=order, default=None)


def _samples(line: Event) -> int:
    return int(line["params"]["evaluation.samples"])
