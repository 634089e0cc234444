"""Plan a sweep: its trials, its cells, and what they will cost. Nothing is started."""

import heapq
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from statistics import median
from typing import Any

from pydantic import ValidationError

from mpdit.errors import InputError
from mpdit.model.architecture import Architecture
from mpdit.scoring.intervals import FOLDS
from mpdit.training.cadence import kept_snapshots
from mpdit.training.ema import TRACKED_SIGMA_RELS, fit_snapshots, snapshot_bytes
from pipelines.identity import name_at_any_length, plugins
from pipelines.known_facts import known_fact
from pipelines.old_identity import known_trial_id
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.networks.asked import check_networks, guide_weights
from pipelines.training.checkpoint import KEPT
from pipelines.yaml_file import explained
from sweeps.planning.faults import PlanError, blamed, of_axis
from sweeps.spec.model import SweepSpec
from sweeps.spec.paths import split_path, with_values
from sweeps.spec.search_algorithm import SEARCHES
from sweeps.spec.space import SEED, STEPS, Domain, Point, unique
from sweeps.storage.events import CellScored, Event, Suggested, TrialEnded
from sweeps.storage.ledger import only

FLOAT_BYTES = 4
CHECKPOINT_COPIES = 3 + len(TRACKED_SIGMA_RELS)  # weights, two Adam moments, the averages


@dataclass(frozen=True)
class Trial:
    """One training run: its id, its value on every training axis, its recipe."""

    id: str
    params: dict[str, Any]
    recipe: Recipe

    @property
    def parameters(self) -> int:
        """Trainable parameters of its model."""
        return _parameters(self.recipe.architecture(self.recipe.facts), bool(plugins(self.recipe.model)))

    @cached_property
    def at_any_length(self) -> str | None:
        """Names its training whatever the number of steps; None where a longer one does not begin as it."""
        return name_at_any_length(self.recipe)


@cache
def _parameters(architecture: Architecture, has_plugins: bool) -> int:
    def count() -> int:
        from mpdit.model.transformer import parameter_count

        return parameter_count(architecture)

    if has_plugins:
        return count()  # their code may be another today
    return int(known_fact("parameters", architecture.as_dict(), count))


@dataclass(frozen=True)
class PlannedCell:
    """One cell to score in every trial, and its value on every post-hoc axis."""

    cell: Cell
    params: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The trials and cells of a sweep; every cell is scored in every trial."""

    spec: SweepSpec
    trials: list[Trial]
    cells: list[PlannedCell]

    @property
    def open(self) -> int:
        """How many trials a search that learns has still to suggest."""
        if self.spec.scheduler.promotes:
            return self._promotions
        search, size = self.spec.search, self.spec.space.size
        points = min(search.trials or 0, search.trials or 0 if size is None else size)
        return max(0, points * len(self.spec.seeds) - len(self.trials)) if search.learns else 0

    @property
    def _promotions(self) -> int:
        """How many trials are still to be promoted, at least, until some have come to the last number of steps."""
        first, *further = self.spec.lengths
        if any(trial.recipe.steps == self.spec.lengths[-1] for trial in self.trials):
            return 0
        expected = points = sum(trial.recipe.steps == first for trial in self.trials) // len(self.spec.seeds)
        for _ in further:
            points = self.spec.scheduler.places(points)
            expected += points
        return max(1, expected * len(self.spec.seeds) - len(self.trials))

    @property
    def expected(self) -> "Plan":
        """The plan with random points in place of those that a search has still to suggest, to estimate its cost."""
        if not self.open:
            return self
        if self.spec.scheduler.promotes:
            return self._with_first_promoted()
        known, drawn = {trial.id for trial in self.trials}, self.spec.space.random(self.open + len(self.trials), 0)
        new = [trial for point in drawn for trial in trials_of(self.spec, point) if trial.id not in known]
        return Plan(self.spec, [*self.trials, *new[: self.open]], self.cells)

    def _with_first_promoted(self) -> "Plan":
        """The plan as if the first points were the best ones."""
        points = [{axis: t.params[axis] for axis in self.spec.space.domains} for t in self.trials]
        promoted = list(unique([point | {STEPS: self.spec.lengths[0]} for point in points]))
        trials = {trial.id: trial for trial in self.trials}
        for steps in self.spec.lengths[1:]:
            promoted = promoted[: self.spec.scheduler.places(len(promoted))]
            new = (trial for point in promoted for trial in trials_of(self.spec, point | {STEPS: steps}))
            trials |= {trial.id: trial for trial in new}
        return Plan(self.spec, list(trials.values()), self.cells)


def make_plan(spec: SweepSpec, events: Sequence[Event] = (), known: Iterable[str] = ()) -> Plan:
    """Make the plan: every point of the search with every seed; of a search that learns, the points in the events.

    Args:
        spec: the sweep.
        events: those of its ledger.
        known: ids of trials that the storage has; one that an older release named keeps that name, as in the events.

    Raises:
        InputError: a point cannot be trained.
    """
    ids = {*known, *(event.trial for event in events if event.trial)}
    found = {trial.id: trial for point in points(spec, events) for trial in trials_of(spec, point, ids)}
    trials, cells, asked = list(found.values()), dict[str, PlannedCell](), _evaluation(spec, events)
    for params in _combinations(spec, spec.post_hoc_axes):
        recipe, evaluation = (
            with_values(settings, {inner: params[path] for path in params if (inner := _within(type(settings), path))})
            for settings in (spec.recipe, asked)
        )
        width = recipe.ema.sigma_rel
        cells.setdefault(Cell(width, evaluation.as_drawn).key, PlannedCell(Cell(width, evaluation), params))
    planned = list(cells.values())  # what draws the same samples is one cell: without guidance, guides do not differ
    _check_cells(spec, trials, planned)
    return Plan(spec, trials, planned)


def _evaluation(spec: SweepSpec, events: Iterable[Event]) -> Evaluation:
    """The evaluation of the cells: a sweep that has scored classes in turn, before there was a choice, goes on so."""
    first = next((cell for cell in only(events, CellScored) if cell.origin is None), None)
    if first is None or "evaluation.classes" in first.params:
        return spec.evaluation
    return spec.evaluation.model_copy(update={"classes": "in_turn"})


def points(spec: SweepSpec, events: Iterable[Event] = ()) -> list[Point]:
    """The points that are known: the first ones, then the search's own or, where it learns, the suggested ones."""
    space, search = spec.first_space, spec.search
    first = [space.active(space.whole(point)) for point in search.first]
    count = search.trials or 0
    algorithm = SEARCHES[search.algorithm]
    suggested = [event.params for event in only(events, Suggested)]
    if algorithm.points is None:
        return list(unique([*first, *suggested]))
    every = list(unique([*first, *algorithm.points(space, count, search.seed)]))
    return [*(every if algorithm.exhaustive else every[:count]), *(suggested if spec.scheduler.promotes else [])]


def trials_of(spec: SweepSpec, point: Point, known: Collection[str] = ()) -> list[Trial]:
    """One trial for each seed; `known`: see `make_plan`. Raises InputError where the point cannot be trained."""
    whole = spec.space.whole(point)
    trials = []
    for seed in spec.seeds:
        named = {**whole, SEED: seed}
        params = {path: named[path] for path in spec.training_axes}
        try:
            recipe = with_values(spec.recipe, params)
            recipe.architecture(recipe.facts)
        except (InputError, ValidationError) as problem:
            reason = explained(problem) if isinstance(problem, ValidationError) else str(problem)
            where = blamed(spec, params)
            raise PlanError(f"{params}: {reason}" if where == ("axes",) else reason, where) from None
        trials.append(Trial(known_trial_id(recipe, known.__contains__), params, recipe))
    return trials


def _within(owner: type[Recipe] | type[Evaluation], path: str) -> str | None:
    """The path within these settings; None where it belongs to the others."""
    model, inner = split_path(path)
    return inner if model is owner else None


def _check_cells(spec: SweepSpec, trials: list[Trial], cells: list[PlannedCell]) -> None:
    """Raise InputError for networks that some training cannot have, and for an EMA width that it cannot give."""
    evaluations = {(e.guidance_rule, e.blocks): e for e in (planned.cell.evaluation for planned in cells)}
    for recipe in {(r.objective.name, r.model): r for r in (trial.recipe for trial in trials)}.values():
        for evaluation in evaluations.values():
            check_networks(recipe, evaluation)
    guided = {_guide_of(planned.cell): planned.cell for planned in cells if planned.cell.evaluation.has_guide}
    for steps in {trial.recipe.steps for trial in trials}:
        for guide, cell in guided.items():
            known_fact("guide", [steps, *guide], partial(_guide, steps, cell))
        for width in {planned.cell.sigma_rel for planned in cells} - {0.0}:
            try:
                known_fact("EMA width", [steps, width], partial(_misfit, steps, width))
            except InputError as problem:
                raise PlanError(str(problem), of_axis(spec, "ema.sigma_rel", width)) from None


def _guide_of(cell: Cell) -> tuple[float, float | None]:
    """What a guide's weights follow from, in a run."""
    guide = cell.evaluation.guide
    return guide.step, guide.sigma_rel


def _guide(steps: int, cell: Cell) -> list[float]:
    return list(guide_weights(cell, kept_snapshots(steps)) or ())


def _misfit(steps: int, width: float) -> float:
    return fit_snapshots(kept_snapshots(steps), steps, width)[1].misfit


def _combinations(spec: SweepSpec, paths: list[str]) -> list[dict[str, Any]]:
    values = itertools.product(*(spec.axes[path] for path in paths))
    return [dict(zip(paths, chosen, strict=True)) for chosen in values]


@dataclass(frozen=True)
class Estimate:
    """What a plan will cost; the hours are None while nothing has been timed in this storage.

    training_hours, scoring_hours: the two parts, one trial after another.
    """

    hours: float | None
    gpu_hours: float | None
    disk_gb: float
    training_hours: float | None = None
    scoring_hours: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """As `plan --json` shows it."""
        return dict(vars(self))

    @property
    def scoring_share(self) -> float | None:
        """The part of the work that is scoring; None where it is not known, or there is no work."""
        if self.training_hours is None or self.scoring_hours is None:
            return None
        whole = self.training_hours + self.scoring_hours
        return self.scoring_hours / whole if whole else None


def axis_factors(spec: SweepSpec, scoring_share: float) -> dict[str, float]:
    """By how much each axis multiplies the time of a sweep of which nothing is done.

    A training axis of a grid by the number of its values; a post-hoc axis of k values scores k times as many cells of
    the same trainings: 1/(1 − s + s/k) for the part s of the time that is scoring. `steps` is left out: a longer
    training goes on from a shorter one.
    """
    axes = ((path, values) for path, values in spec.axes.items() if path != "steps")
    listed = {path: len(values) for path, values in axes if not isinstance(values, Domain)}
    return {
        path: 1 / (1 - scoring_share + scoring_share / count) if path in spec.post_hoc_axes else float(count)
        for path, count in listed.items()
        if path in spec.post_hoc_axes or path == SEED or SEARCHES[spec.search.algorithm].exhaustive
    }


def largest_saving(spec: SweepSpec, scoring_share: float) -> tuple[str, float]:
    """The setting that saves most when it is halved, as --set takes it, and the part of the time that it saves.

    The steps of the training, or the samples that a cell is scored with: nearly all of the time follows them.
    """
    by_setting = {f"evaluation.samples={max(FOLDS, spec.evaluation.samples // 2)}": scoring_share / 2}
    if "steps" not in spec.axes and spec.recipe.steps > 1:
        by_setting[f"recipe.steps={spec.recipe.steps // 2}"] = (1 - scoring_share) / 2
    return max(by_setting.items(), key=lambda pair: pair[1])


@dataclass(frozen=True)
class Workload:
    """What remains to be done: trials to train, and cells to score of those and of others.

    steps: how many steps each of those to train will take. more_scoring: scoring work besides these cells. kept: of how
    many trials the weights stay; None: of all.
    """

    train: list[Trial]
    cells: list[tuple[Trial, list[Cell]]]
    steps: Mapping[str, int]
    more_scoring: float = 0.0
    kept: int | None = None


def estimate(finished: list[TrialEnded], work: Workload, *, concurrent: int, gpus: float) -> Estimate:
    """Estimate the cost of some work from finished trials.

    Training time is proportional to parameters × images, scoring time to parameters × samples × NFE. The hours are
    those of the trials packed in their order onto the slots, plus the start of the first workers where it was timed.

    Args:
        finished: The ends of timed trials.
        work: What is to be done.
        concurrent: How many trials run at a time.
        gpus: How many GPUs each of them holds.
    """
    parameters = {trial.id: trial.parameters for trial, _ in work.cells}
    disk = _disk([(trial, parameters[trial.id]) for trial in work.train], concurrent, work.kept)
    training = [end.training_pace for end in finished if end.training_pace is not None]
    scoring = [end.scoring_pace for end in finished if end.scoring_pace is not None]
    hours = gpu_hours = training_hours = scoring_hours = None
    if training and scoring:
        pace, each = median(training), median(scoring)
        more = work.more_scoring / len(work.cells) if work.cells else 0.0
        trained = [
            pace * training_work(trial.recipe, parameters[trial.id], work.steps.get(trial.id, 0))
            for trial, _ in work.cells
        ]
        scored = [
            each * (sum(scoring_work(cell, parameters[trial.id]) for cell in cells) + more)
            for trial, cells in work.cells
        ]
        seconds = [sum(both) for both in zip(trained, scored, strict=True)]
        training_hours, scoring_hours = (round(sum(part) / 3600, 4) for part in (trained, scored))
        start = max((end.start_seconds for end in finished), default=0.0) if work.cells else 0.0
        hours = round((packed(seconds, concurrent) + start) / 3600, 4)
        gpu_hours = round(sum(seconds) / 3600 * gpus, 4)
    return Estimate(hours, gpu_hours, round(disk / 1e9, 3), training_hours, scoring_hours)


def _disk(trials: list[tuple[Trial, int]], concurrent: int, kept: int | None) -> int:
    """The most bytes that are needed at one time. trials: each with its parameters.

    Weights stay: all, or those kept and those of running trials; the last checkpoint with them, where a longer training
    could go on from it. Other checkpoints exist only while a trial is trained.
    """
    weights = sorted(_bytes_that_stay(trial.recipe, count) for trial, count in trials)
    checkpoints = sorted(FLOAT_BYTES * KEPT * CHECKPOINT_COPIES * count for _, count in trials)
    most = len(trials) if kept is None else min(len(trials), kept + concurrent)
    return sum(weights[len(trials) - most :]) + sum(checkpoints[max(0, len(trials) - concurrent) :])


def _bytes_that_stay(recipe: Recipe, count: int) -> int:
    snapshots = int(known_fact("bytes of snapshots", recipe.steps, partial(snapshot_bytes, recipe.steps, 1)))
    return count * (snapshots + FLOAT_BYTES * (1 + (CHECKPOINT_COPIES if recipe.can_go_on else 0)))


def packed(seconds: Iterable[float], slots: int) -> float:
    """When the last of some jobs ends, where each starts in its order as soon as a slot is free."""
    free = [0.0] * max(1, slots)
    for length in seconds:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def training_work(recipe: Recipe, parameters: int, steps: int | None = None) -> float:
    """Parameters × images, to which the time of a training is proportional. steps: how many of its steps."""
    return float(parameters) * (recipe.steps if steps is None else steps) * recipe.batch


def scoring_work(cell: Cell, parameters: int) -> float:
    """Parameters × samples × NFE, to which the time of scoring a cell is proportional."""
    return float(parameters) * cell.evaluation.samples * cell.evaluation.network_evaluations
