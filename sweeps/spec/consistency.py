"""Parts of a sweep file that are each right and do not fit together: refused before anything starts."""

from importlib.util import find_spec
from typing import Any

from mpdit.errors import input_error, nearest
from pipelines.yaml_file import Document
from sweeps.spec.model import SweepSpec
from sweeps.spec.space import SEED, Domain

RUNG_METRICS = ("frechet", "magnitude_drift")  # what a training that is not finished can be scored by
UNCONDITIONAL = ("gp", "cmaes")


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
        if spec.search.algorithm == "grid" and axis.kind != "values":
            raise input_error(
                f"{place}: a grid cannot take a range",
                given=f"{path}: {axis.model_dump()}",
                allowed="a list of values",
                hint="search: {algorithm: random, trials: 20}, or quasi_random, tpe, gp …",
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
    search, domains = spec.search, spec.space.domains
    name, place = search.algorithm, document.place(("search", "algorithm"))
    if name == "grid" and search.trials is not None:
        hint = "leave it out; budget.trials ends a sweep early"
        place = document.place(("search", "trials"))
        raise input_error(f"{place}: a grid tries every combination", given=f"trials: {search.trials}", hint=hint)
    if name != "grid" and search.trials is None:
        raise input_error(
            f"{place}: {name} needs to know how many points to try", hint=f"{{algorithm: {name}, trials: 20}}"
        )
    if not search.learns:
        return
    if not domains:
        raise input_error(
            f"{place}: {name} has nothing to search", given=", ".join(spec.axes), hint="add a training axis"
        )
    conditional = [path for path, domain in domains.items() if domain.when]
    if name in UNCONDITIONAL and conditional:
        raise input_error(f"{place}: {name} cannot take an axis with a condition", given=conditional[0], allowed="tpe")
    words = [path for path, domain in domains.items() if not all(map(is_number, domain.values or []))]
    if name == "cmaes" and words:
        raise input_error(f"{place}: cmaes takes numbers only", given=f"{words[0]}, of words", allowed="tpe, gp, nsga2")
    if name == "cmaes" and len(domains) < 2:
        raise input_error(f"{place}: cmaes needs two axes or more", given=next(iter(domains)), allowed="tpe, gp")
    if name == "cmaes" and len(spec.objective) > 1:
        raise input_error(
            f"{place}: cmaes follows one objective", given=", ".join(spec.metrics), allowed="nsga2, tpe, gp"
        )
    if name == "cmaes" and find_spec("cmaes") is None:
        raise input_error(f"{place}: cmaes is not installed", hint="pip install 'mpdit[cma]'")


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
    if scheduler.kind == "none":
        return
    if not scheduler.rungs:
        hint = "rungs: [0.5], the default"
        raise input_error(f"{place}: {scheduler.kind} has no rungs to stop a trial at", given="rungs: []", hint=hint)
    if len(spec.objective) > 1:
        given = ", ".join(spec.metrics)
        raise input_error(f"{place}: a scheduler stops by one objective", given=given, hint="scheduler: {kind: none}")
    allowed = RUNG_METRICS if scheduler.kind != "paired" else RUNG_METRICS[:1]
    if spec.metrics[0] not in allowed:
        raise input_error(
            f"{place}: {scheduler.kind} cannot stop a training by {spec.metrics[0]}",
            given=f"objective: {spec.metrics[0]}",
            allowed=", ".join(allowed),
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
