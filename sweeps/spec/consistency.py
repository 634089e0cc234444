"""Check, before anything starts, that the parts of a sweep file fit together."""

import math
from collections.abc import Callable
from typing import Any

from mpdit.errors import input_error, nearest
from pipelines.scoring.metrics.registry import METRICS
from pipelines.yaml_file import Document
from sweeps.spec.model import Confirm, SweepSpec
from sweeps.spec.scheduler_kind import SCHEDULERS
from sweeps.spec.search_algorithm import SEARCHES, SearchAlgorithm
from sweeps.spec.space import SEED, STEPS, Domain


def check_consistency(document: Document, spec: SweepSpec) -> None:
    """Raises InputError, with its line, for the first contradiction."""
    _check_ranges(document, spec)
    _check_conditions(document, spec)
    _check_search(document, spec)
    _check_first(document, spec)
    if len(set(spec.metrics)) < len(spec.metrics):
        raise input_error(f"{document.place(('objective',))}: a metric is named twice", given=", ".join(spec.metrics))
    _check_scheduler(document, spec)
    _check_budget(document, spec)
    _check_confirm(document, spec)
    batches = spec.axes.get("batch", [spec.recipe.batch])
    for batch in batches.values or [] if isinstance(batches, Domain) else batches:
        check_shared(batch, spec.resources.workers_per_trial, document.place(("resources", "workers_per_trial")))


def check_shared(batch: int, workers: int, place: str = "resources.workers_per_trial") -> None:
    """Check that the workers of a trial get the same number of samples each. Raises InputError."""
    if batch % workers:
        raise input_error(
            f"{place}: a batch of {batch} cannot be shared by {workers} workers",
            given=f"resources.workers_per_trial: {workers}",
            allowed=", ".join(str(n) for n in range(1, batch + 1) if batch % n == 0),
        )


def is_number(value: Any) -> bool:
    """Whether a value has an order that an algorithm may follow."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_ranges(document: Document, spec: SweepSpec) -> None:
    for path, axis in spec.axes.items():
        place = document.place(("axes", path))
        if not isinstance(axis, Domain):
            continue
        if path == SEED or path in spec.post_hoc_axes:
            why = "a repetition" if path == SEED else "answered from finished trainings"
            raise input_error(
                f"{place}: {path} is {why}, and is not searched", given=axis.model_dump(), allowed="a list of values"
            )
        if SEARCHES[spec.search.algorithm].exhaustive and axis.kind != "values":
            others = [algorithm.name for algorithm in SEARCHES if not algorithm.exhaustive]
            others.sort(key=lambda name: name != "random")  # the plainest one is the example
            raise input_error(
                f"{place}: a {spec.search.algorithm} cannot take a range",
                given=f"{path}: {axis.model_dump()}",
                allowed="a list of values",
                hint=f"search: {{algorithm: {others[0]}, trials: 20}}, or {', '.join(others[1:])}",
            )


def _check_conditions(document: Document, spec: SweepSpec) -> None:
    before: list[str] = []
    for path, domain in spec.space.domains.items():
        for other, values in (domain.when or {}).items():
            place = document.place(("axes", path))
            if other not in before:
                raise input_error(
                    f"{place}: {path} counts only when {other} has a value, and that is no axis before it",
                    given=f"when: {{{other}: {values}}}",
                    nearest=nearest(other, before),
                    allowed=", ".join(before) or "a searched axis without a condition of its own, written above",
                )
            wrong = [value for value in values if not spec.space.domains[other].holds(value)]
            if wrong:
                raise input_error(
                    f"{place}: {path} waits for a value that {other} never has",
                    given=wrong[0],
                    allowed=spec.space.domains[other].model_dump(),
                )
        if not domain.when:
            before.append(path)


def _check_search(document: Document, spec: SweepSpec) -> None:
    search, place = spec.search, document.place(("search", "algorithm"))
    algorithm = SEARCHES[search.algorithm]
    if algorithm.exhaustive and search.trials is not None:
        raise input_error(
            f"{document.place(('search', 'trials'))}: a {algorithm.name} tries every combination",
            given=f"trials: {search.trials}",
            hint="leave it out; budget.trials ends a sweep early",
        )
    if not algorithm.exhaustive and search.trials is None:
        raise input_error(
            f"{place}: {algorithm.name} needs to know how many points to try",
            hint=f"{{algorithm: {algorithm.name}, trials: 20}}",
        )
    if algorithm.learns:
        _check_space(place, algorithm, spec)
    elif search.prior != "none":
        raise input_error(
            f"{document.place(('search', 'prior'))}: {algorithm.name} does not follow from results",
            given=f"prior: {search.prior}",
            allowed=", ".join(one.name for one in SEARCHES if one.learns),
        )


def _check_space(place: str, algorithm: SearchAlgorithm, spec: SweepSpec) -> None:
    """Raises InputError where a search that learns cannot take the axes or the objectives."""
    name, domains = algorithm.name, spec.space.domains
    if not domains:
        raise input_error(
            f"{place}: {name} has nothing to search", given=", ".join(spec.axes), hint="add a training axis"
        )
    conditional = [path for path, domain in domains.items() if domain.when]
    if conditional and not algorithm.takes_conditions:
        allowed = _learning(lambda other: other.takes_conditions)
        raise input_error(
            f"{place}: {name} cannot take an axis with a condition", given=conditional[0], allowed=allowed
        )
    words = [path for path, domain in domains.items() if not all(map(is_number, domain.values or []))]
    if words and not algorithm.takes_words:
        allowed = _learning(lambda other: other.takes_words)
        raise input_error(f"{place}: {name} takes numbers only", given=f"{words[0]}, of words", allowed=allowed)
    if len(domains) < algorithm.least_axes:
        allowed = _learning(lambda other: other.least_axes <= len(domains))
        needed = {2: "two"}.get(algorithm.least_axes, str(algorithm.least_axes))
        raise input_error(f"{place}: {name} needs {needed} axes or more", given=next(iter(domains)), allowed=allowed)
    if len(spec.objective) > 1 and not algorithm.takes_several_objectives:
        allowed = _learning(lambda other: other.takes_several_objectives)
        raise input_error(f"{place}: {name} follows one objective", given=", ".join(spec.metrics), allowed=allowed)
    if algorithm.requires and not algorithm.is_installed:
        module, extra = algorithm.requires
        raise input_error(f"{place}: {module} is not installed", hint=f"pip install 'mpdit[{extra}]'")


def _learning(fits: Callable[[SearchAlgorithm], bool]) -> str:
    """The searches that learn and fit, for a message."""
    return ", ".join(algorithm.name for algorithm in SEARCHES if algorithm.learns and fits(algorithm))


def _check_first(document: Document, spec: SweepSpec) -> None:
    domains = spec.space.domains
    for number, point in enumerate(spec.search.first):
        place = document.place(("search", "first", number))
        for path in point:
            if path not in domains:
                near, allowed = nearest(path, domains), ", ".join(domains)
                raise input_error(f"{place}: {path} is no searched axis", given=path, nearest=near, allowed=allowed)
        for path, value in spec.space.active(spec.space.whole(point)).items():
            if not domains[path].holds(value):
                raise input_error(
                    f"{place}: the axis {path} does not hold {value!r}"
                    + ("" if path in point else ", the recipe's own value"),
                    given=value,
                    allowed=domains[path].model_dump(),
                )


def _check_scheduler(document: Document, spec: SweepSpec) -> None:
    scheduler, place = spec.scheduler, document.place(("scheduler",))
    if scheduler.promotes:
        _check_promotion(place, spec)
    if not scheduler.stops:
        return
    if not scheduler.rungs:
        hint = "rungs: [0.5], the default"
        raise input_error(f"{place}: {scheduler.kind} has no rungs to stop a trial at", given="rungs: []", hint=hint)
    if len(spec.objective) > 1:
        given = ", ".join(spec.metrics)
        raise input_error(f"{place}: a scheduler stops by one objective", given=given, hint="scheduler: {kind: none}")
    kind = SCHEDULERS[scheduler.kind]
    if not kind.can_stop_by(METRICS[spec.metrics[0]]):
        raise input_error(
            f"{place}: {scheduler.kind} cannot stop a training by {spec.metrics[0]}",
            given=f"objective: {spec.metrics[0]}",
            allowed=", ".join(metric.name for metric in METRICS if kind.can_stop_by(metric)),
        )


def _check_promotion(place: str, spec: SweepSpec) -> None:
    """Raises InputError where points cannot be trained on, or where it is not known which."""
    name, lengths = spec.scheduler.kind, spec.axes[STEPS]
    if not isinstance(lengths, list) or len(lengths) < 2 or sorted(set(lengths)) != lengths:
        raise input_error(
            f"{place}: {name} needs at least two numbers of steps, the smallest first",
            given=f"start: {spec.scheduler.start}, steps: {lengths}",
            allowed=f"a start below the recipe's {spec.recipe.steps} steps",
        )
    if not spec.recipe.can_go_on:
        o = spec.recipe.optimizer
        in_steps = {"warmup": max(2, lengths[0] // 5), "decay_from": max(2, lengths[-1] * 2 // 5)}
        raise input_error(
            f"{place}: {name} trains on what it has begun, and this schedule was laid out for one number of steps",
            given=f"schedule: {o.schedule}, warmup: {o.warmup:g}, decay_from: {o.decay_from:g}",
            allowed="inverse_sqrt or constant, with numbers of steps",
            hint="recipe: {optimizer: {" + ", ".join(f"{key}: {value}" for key, value in in_steps.items()) + "}}",
        )
    if SEARCHES[spec.search.algorithm].learns:
        raise input_error(
            f"{place}: {name} promotes points that are known from the start",
            given=f"search: {spec.search.algorithm}",
            allowed=", ".join(algorithm.name for algorithm in SEARCHES if not algorithm.learns),
        )
    if len(spec.objective) > 1:
        given = ", ".join(spec.metrics)
        raise input_error(f"{place}: {name} promotes by one objective", given=given, hint="scheduler: {kind: none}")


def _check_confirm(document: Document, spec: SweepSpec) -> None:
    """Raises InputError where more cells are to be scored again than there are, or seeds are given to none."""
    if spec.confirm.seeds and not spec.confirm.best:
        raise input_error(
            f"{document.place(('confirm', 'seeds'))}: there are no best points to train with more seeds",
            given=f"best: 0, seeds: {spec.confirm.seeds}",
            hint="best: 3, the default",
        )
    size, widths = spec.space.size, [spec.axes[path] for path in spec.post_hoc_axes]
    points = min(size, spec.search.trials or size) if size is not None else spec.search.trials
    cells = (points or 1) * math.prod(len(values) for values in widths)
    if spec.confirm.best > max(cells, Confirm().best):
        raise input_error(
            f"{document.place(('confirm', 'best'))}: there are not so many cells to score again",
            given=f"best: {spec.confirm.best}",
            allowed=f"0 to {cells}",
        )


def _check_budget(document: Document, spec: SweepSpec) -> None:
    budget, seeds = spec.budget, len(spec.seeds)
    trials = document.place(("budget", "trials"))
    if budget.gpu_hours is not None and spec.resources.gpus_per_trial == 0:
        raise input_error(
            f"{document.place(('budget', 'gpu_hours'))}: a budget of GPU-hours, and trials without a GPU, contradict",
            given=f"gpu_hours: {budget.gpu_hours:g}, gpus_per_trial: 0",
            hint="budget.hours, or gpus_per_trial: auto",
        )
    if budget.trials is not None and budget.trials < seeds:
        raise input_error(
            f"{trials}: not one point could be tried with all its seeds",
            given=f"trials: {budget.trials}, {seeds} seeds",
            hint=f"trials: {seeds} or more, or fewer seeds",
        )
    if budget.trials is not None and spec.search.trials is not None and budget.trials < spec.search.trials * seeds:
        each = f" × {seeds} seeds" if seeds > 1 else ""
        raise input_error(
            f"{trials}: search.trials and budget.trials contradict each other",
            given=f"search.trials: {spec.search.trials}{each}, budget.trials: {budget.trials}",
            hint="leave one of them out",
        )
