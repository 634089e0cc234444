"""The sweep file: a recipe, an evaluation, their axes, and how to run them; checked before anything starts."""

import itertools
import math
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mpdit.errors import input_error
from mpdit.model.old_designs import current_recipe, current_values, is_old
from mpdit.scoring.intervals import FOLDS
from pipelines.recipe import Recipe
from pipelines.scoring.cell import SAMPLE_BATCH, Evaluation
from pipelines.scoring.metrics.registry import METRICS, Mode, measured_metrics
from pipelines.settings import KindName, Settings
from sweeps.spec.constraint import Limit, parse_constraint
from sweeps.spec.paths import is_post_hoc_path, value_at
from sweeps.spec.scheduler_kind import SCHEDULERS
from sweeps.spec.search_algorithm import SEARCHES
from sweeps.spec.space import SEED, STEPS, Domain, Point, Space, parse_axis
from sweeps.spec.tracking_views import VIEWS

SMALLEST_SHARE = 0.0001  # of a GPU, as Ray counts them
MOST_GPUS = 64  # of one machine, as no machine has


class Search(Settings):
    """How training axes are searched. trials: how many points, each with all its seeds; a grid has its own number.

    first: points to try before any other, by axis path; the recipe's own value where an axis is not named. prior:
    storage begins a search that learns with the best points of the storage's other sweeps, on the axes that it shares.
    """

    algorithm: Annotated[str, KindName(SEARCHES)] = "grid"
    trials: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0, lt=2**32)
    first: list[dict[str, Any]] = Field(default_factory=list)
    prior: Literal["none", "storage"] = "none"

    @property
    def learns(self) -> bool:
        """Whether its points follow from results."""
        return SEARCHES[self.algorithm].learns


def _in_order(rungs: list[float]) -> list[float]:
    if any(not 0 < share < 1 for share in rungs) or rungs != sorted(set(rungs)):
        raise input_error("rungs are shares of a training, in order", given=rungs, allowed="as [0.5, 0.75]")
    return rungs


class Scheduler(Settings):
    """How trials are stopped early, or promoted to more steps.

    Stopped: by scores taken when a training has come to each of the rungs (shares of it). The default rung comes after
    the learning rate has begun to fall (decay_from 0.4): before, scores tell little. samples: what a rung is scored
    with. reduction: about one trial in so many passes a rung.

    Promoted (halving): all points are trained for `start` steps, the best 1/factor of them for factor times as many,
    and so on up to the recipe's steps; each of these trainings is a trial. Needs a schedule in steps.
    """

    kind: Annotated[str, KindName(SCHEDULERS)] = "none"
    rungs: Annotated[list[float], AfterValidator(_in_order)] = Field(default_factory=lambda: [0.5])
    samples: int = Field(SAMPLE_BATCH, ge=FOLDS)
    reduction: float = Field(2.0, gt=1)
    start: int = Field(50, ge=1)
    factor: float = Field(3.0, gt=1)

    @property
    def stops(self) -> bool:
        """Whether it stops trials, so that they are scored at rungs."""
        return SCHEDULERS[self.kind].rule is not None

    @property
    def promotes(self) -> bool:
        """Whether it promotes points to more steps."""
        return SCHEDULERS[self.kind].promotes

    def places(self, points: int) -> int:
        """How many of so many points are promoted, without those that tie."""
        return math.ceil(points / self.factor)

    def lengths(self, steps: int) -> list[int]:
        """The numbers of steps that points are trained for, up to `steps`."""
        powers = (round(self.start * self.factor**power) for power in itertools.count())
        return [*itertools.takewhile(lambda length: length < steps, powers), steps]


class SweepObjective(Settings):
    """What cells are ranked by. mode: the metric's own, min or max; it may be written, and is checked."""

    metric: Annotated[str, KindName(METRICS)] = "frechet"
    mode: Mode = Field(None, validate_default=True)  # None never stays

    @field_validator("mode", mode="before")
    @classmethod
    def _of_metric(cls, given: Any, info: ValidationInfo) -> Any:
        name = info.data.get("metric")  # None where it is wrong, which has its own message
        if name is None or given not in (None, "min", "max"):
            return given
        kind = METRICS[name]
        if given not in (None, kind.mode):
            better = "larger" if kind.larger_is_better else "smaller"
            raise input_error(
                f"of {name} the {better} value is better", given=f"mode: {given}", allowed=f"mode: {kind.mode}"
            )
        return kind.mode


def _one_or_several(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


def _as_written(objectives: list[SweepObjective]) -> Any:
    written = [objective.model_dump() for objective in objectives]
    return written[0] if len(written) == 1 else written


Objectives = Annotated[
    list[SweepObjective], Field(min_length=1), BeforeValidator(_one_or_several), PlainSerializer(_as_written)
]


def _cards(gpus: float) -> float:
    if gpus != int(gpus) and not SMALLEST_SHARE <= gpus < 1:
        raise input_error(
            "one GPU may be shared, several are whole",
            given=gpus,
            allowed=f"0, {SMALLEST_SHARE} to 1, 2, 3 … {MOST_GPUS}",
        )
    return gpus


class Resources(Settings):
    """What one trial gets; with several workers, each of them. gpus_per_trial auto: one if there is one; 0: the CPU."""

    gpus_per_trial: Literal["auto"] | Annotated[float, Field(ge=0, le=MOST_GPUS), AfterValidator(_cards)] = "auto"
    cpus_per_trial: int = Field(1, ge=1, le=4096)
    workers_per_trial: int = Field(1, ge=1)


class Screening(Settings):
    """Staged scoring: every cell with `samples`, the best `keep` of them with 1/keep times as many, and so on.

    samples null: every cell is scored in full at once. See sweeps/planning/staged_scoring.py.
    """

    samples: Annotated[int, Field(ge=SAMPLE_BATCH, multiple_of=SAMPLE_BATCH)] | None = None
    keep: float = Field(1 / 3, gt=0, lt=1)


class Confirm(Settings):
    """How the first cells are scored again, on fresh noise, once all are known. best: so many of them; 0: none.

    samples null: as many as the evaluation draws. See sweeps/planning/confirmation.py. seeds: with how many further
    training seeds the best points are then trained, in the sweep NAME-confirm. See sweeps/advice/finalists.py.
    """

    best: int = Field(3, ge=0)
    samples: int | None = Field(None, ge=FOLDS)
    seeds: int = Field(0, ge=0)


class Budget(Settings):
    """Limits on a sweep, over all its starts; one that is reached ends it with what it has.

    hours: of the clock while the sweep runs. gpu_hours: of all GPUs together. trials: trainings begun. disk_gb: what
    its checkpoints and snapshots may take; null is the storage's free space.
    """

    hours: float | None = Field(None, gt=0)
    gpu_hours: float | None = Field(None, gt=0)
    trials: int | None = Field(None, ge=1)
    disk_gb: float | None = Field(None, gt=0)


class Retention(Settings):
    """Whose weights stay. best: of so many points of the sweep, with all their seeds; null: of all."""

    best: int | None = Field(None, ge=1)


class Tracking(Settings):
    """Where the sweep is shown. uri null: the storage's own database; experiment null: the sweep's name."""

    view: Annotated[str, KindName(VIEWS)] = "mlflow"
    uri: str | None = None
    experiment: str | None = None


Occasion = Literal["end", "fail", "best"]


class Notify(Settings):
    """Whom to notify when a sweep ends, a trial fails or a new best is found.

    command: run by the shell, the text in $MPDIT_TEXT. webhook: an address that gets JSON with a `text`; $NAMES in it
    are taken from the environment, so that a secret need not be in the file.
    """

    command: str | None = None
    webhook: str | None = None
    when: list[Occasion] = Field(default_factory=lambda: list(get_args(Occasion)))


def current_sweep(given: Any) -> Any:
    """The fields of a sweep file; where an earlier release wrote them, its E is F (mpdit/model/old_designs.py)."""
    recipe = given.get("recipe") if isinstance(given, dict) else None
    if not isinstance(recipe, dict) or not is_old(recipe.get("model")):
        return given
    current, axes, search = {"recipe": current_recipe(recipe)}, given.get("axes"), given.get("search")
    if isinstance(axes, dict):
        current["axes"] = current_values(axes)
    if isinstance(search, dict) and search.get("first"):
        current["search"] = {**search, "first": [current_values(point) for point in search["first"]]}
    return {**given, **current}


class SweepSpec(Settings):
    """One sweep file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    recipe: Recipe = Recipe()
    axes: dict[str, Annotated[Any, BeforeValidator(parse_axis)]] = Field(default_factory=dict)
    search: Search = Search()
    scheduler: Scheduler = Scheduler()
    objective: Objectives = Field(default_factory=lambda: [SweepObjective()])
    constraints: list[Annotated[str, BeforeValidator(lambda text: str(parse_constraint(text)))]] = Field(
        default_factory=list
    )
    evaluation: Evaluation = Evaluation()
    screening: Screening = Screening()
    confirm: Confirm = Confirm()
    resources: Resources = Resources()
    budget: Budget = Budget()
    retention: Retention = Retention()
    tracking: Tracking = Tracking()
    notify: Notify = Notify()

    @model_validator(mode="before")
    @classmethod
    def _designs_as_named_today(cls, given: Any) -> Any:
        return current_sweep(given)

    @model_validator(mode="after")
    def _lengths_are_an_axis(self) -> "SweepSpec":
        """Where points are promoted, the numbers of steps are an axis; a file may list them itself."""
        if self.scheduler.promotes and STEPS not in self.axes:
            self.axes[STEPS] = self.scheduler.lengths(self.recipe.steps)
        return self

    @property
    def training_axes(self) -> list[str]:
        """Axes whose every value needs a training run."""
        return [path for path in self.axes if not is_post_hoc_path(path)]

    @property
    def post_hoc_axes(self) -> list[str]:
        """Axes answered from a finished run."""
        return [path for path in self.axes if is_post_hoc_path(path)]

    @property
    def seeds(self) -> list[int]:
        """The repetitions of every point."""
        listed = self.axes.get(SEED, [self.recipe.seed])
        return list(listed)

    @property
    def space(self) -> Space:
        """The training axes that are searched: all but the seed."""
        searched = [path for path in self.training_axes if path != SEED]
        own: Point = {path: value_at(self.recipe, path) for path in searched}
        return Space({path: self.axes[path] for path in searched}, own)

    @property
    def first_space(self) -> Space:
        """The space of the points that are tried first: where points are promoted, with the fewest steps."""
        if not self.scheduler.promotes:
            return self.space
        space = self.space
        return Space({**space.domains, STEPS: Domain(values=self.lengths[:1])}, {**space.own, STEPS: self.lengths[0]})

    @property
    def lengths(self) -> list[int]:
        """The numbers of steps that trainings are listed for, the smallest first; the recipe's own where none are."""
        return sorted(self.axes.get(STEPS, [self.recipe.steps]))

    @property
    def metrics(self) -> list[str]:
        """The metrics of the objectives, the first one first."""
        return [objective.metric for objective in self.objective]

    @property
    def columns(self) -> list[str]:
        """The metrics that a ranking shows besides the objectives: those measured or constrained."""
        names = [kind.name for kind in measured_metrics(self.evaluation.metrics)]
        shown = {"frechet", "magnitude_drift", *(self.metrics if len(self.metrics) > 1 else [])}
        return [name for name in dict.fromkeys([*names, *(limit.metric for limit in self.limits)]) if name not in shown]

    @property
    def limits(self) -> list[Limit]:
        """The constraints, read."""
        return [parse_constraint(text) for text in self.constraints]
