"""What an advice is, what it is made from, and the registry of its kinds."""

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any

import yaml

from mpdit.errors import InputError
from mpdit.registry import Registry
from mpdit.scoring.intervals import StandardError
from mpdit.scoring.student_t import chance
from pipelines.yaml_file import Document
from sweeps.advice.axis_answers import AxisAnswer, axis_answers
from sweeps.planning.plan import Plan, make_plan
from sweeps.results.ranking import Row
from sweeps.spec.reading import checked_spec
from sweeps.storage.events import Event

MARGIN = 0.05  # of the best value: a loss that is expected to be smaller is not worth a training
WORSE = 0.1  # of the best value: a choice that is worse by more is a wrong one …
RISK = 0.03  # … which may have this probability (chosen by benchmarks/advice.py)


@dataclass(frozen=True)
class Advice:
    """One thing to do next.

    Attributes:
    kind: edge, short, seeds, samples, settled, unsettled …
        axis: the path that it is about, if it is about one.
        text: why, and what it is expected to settle.
        command: does it; it can be pasted as it is.
        settings: what the command changes in the sweep file, each as `--set` takes it.
        cost_seconds: of the sweep with these settings; None where it was not asked for or nothing was timed.
    """

    kind: str
    axis: str | None
    text: str
    command: str
    settings: tuple[str, ...] = ()
    cost_seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As `best --json` shows it."""
        fields = asdict(self)
        del fields["settings"], fields["cost_seconds"]
        return fields


@dataclass(frozen=True)
class Situation:
    """What advice follows from: the plan of a sweep, its ranked rows, its events.

    Attributes:
        file: the sweep file, as a command names it.
        options: what every command needs besides, as ` --storage DIR`.
    """

    plan: Plan
    rows: Sequence[Row]
    events: Sequence[Event]
    file: str
    options: str = ""

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.plan.spec.name

    @cached_property
    def scored(self) -> list[Row]:
        """The rows that were scored in full, best first; the first one has a value."""
        return [row for row in self.rows if row.is_scored]

    @property
    def best(self) -> Row:
        """The best row."""
        return self.scored[0]

    @cached_property
    def answers(self) -> list[AxisAnswer]:
        """The answer to each axis."""
        return axis_answers(self.plan.spec.axes, self.rows)

    def worth(self, gain: float) -> bool:
        """Whether an expected improvement of the value is more than the margin."""
        return gain > MARGIN * abs(self.best.value or 0.0)

    def loss(self, rivals: Iterable[Row]) -> float:
        """The expected loss from choosing the best row where one of these may be better: at most the sum over them."""
        costs = ((rival.cost or 0.0, rival.gap_error or 0.0) for rival in rivals)
        return sum(expected_loss(cost - (self.best.cost or 0.0), error) for cost, error in costs)

    def risk(self, rivals: Iterable[Row]) -> float:
        """The probability that one of these is better than the best row by more than WORSE: at most their sum."""
        limit, best = WORSE * abs(self.best.value or 0.0), self.best.cost or 0.0
        gaps = [
            ((rival.cost or 0.0) - best, StandardError(rival.gap_error, rival.gap_freedom or math.inf))
            for rival in rivals
            if rival.gap_error is not None
        ]
        return sum(chance_below(-limit, gap, error) for gap, error in gaps)

    def is_undecided(self, rivals: Sequence[Row], share: float = 1.0) -> bool:
        """Whether the best row may be a wrong choice: by the expected loss, or by the risk of a large one.

        share: of the loss and of the risk that are taken.
        """
        return self.worth(self.loss(rivals) / share) or self.risk(rivals) > share * RISK

    def changed(self, settings: Sequence[str]) -> Plan | None:
        """The plan of the sweep with these settings, made once; None where it cannot be made."""
        wanted = tuple(settings)
        if wanted not in self._plans:
            try:
                self._plans[wanted] = self.planned(wanted)
            except InputError:
                self._plans[wanted] = None
        return self._plans[wanted]

    @cached_property
    def _plans(self) -> dict[tuple[str, ...], Plan | None]:
        return {}

    def planned(self, settings: Sequence[str]) -> Plan:
        """The plan of the sweep with these settings. Raises InputError where it cannot be made."""
        document = Document(self.plan.spec.model_dump(), self.file, {})
        return make_plan(checked_spec(document, list(settings)), self.events)

    def sweep_command(self, settings: Sequence[str]) -> str:
        """The command that runs the sweep with these settings."""
        parts = [f"--set {shlex.quote(setting)}" for setting in settings]
        return " ".join(["mpdit sweep", shlex.quote(self.file), *parts]) + self.options


@dataclass(frozen=True)
class AdviceKind:
    """A kind of advice.

    Attributes:
        order: kinds with a lower number come first: what is cheap and certain before what is long.
        of: makes the advice that a situation asks for; nothing where it asks for none.
    """

    name: str
    doc: str
    order: int
    of: Callable[[Situation], list[Advice]]


ADVICE: Registry[AdviceKind] = Registry("advice", "sweeps.advice.kinds")


def as_settings(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Changes of a sweep file by path, each as `--set` takes it: PATH=VALUE in one line of YAML."""
    return tuple(f"{path}={_inline(value)}" for path, value in changes.items())


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


@lru_cache(maxsize=1 << 14)
def chance_below(limit: float, gap: float, error: StandardError) -> float:
    """The probability that a difference is below a limit, where it was measured as `gap`: Student's t."""
    if error.error <= 0:
        return float(gap < limit)
    t = (gap - limit) / error.error
    beyond = chance(t, error.freedom) / 2
    return beyond if t > 0 else 1 - beyond


def expected_loss(gap: float, error: float) -> float:
    """The expected loss from choosing the best row where a rival is worse by `gap` with this standard error.

    E[max(0, −d)] for d ~ N(gap, error²): error·φ(z) − gap·Φ(−z) with z = gap/error, the expected improvement of
    Bayesian optimisation.
    """
    if error <= 0:
        return max(0.0, -gap)
    z = gap / error
    density, below = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), math.erfc(z / math.sqrt(2)) / 2
    return error * density - gap * below
