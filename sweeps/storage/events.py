"""What can happen in a sweep: one struct for each kind of event, as its line stands in the ledger.

A line is one JSON object: "time", "event" (its kind), "trial", "step", then the fields below under their own names.
Fields that a ledger of an earlier version lacks have defaults; fields that we do not know are ignored; an event of a
kind that we do not know is kept as `UnknownEvent`.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct, field

from mpdit.model.old_designs import current_values
from pipelines.old_identity import current_cell_key
from pipelines.scoring.cell import cell_key
from pipelines.scoring.metrics.registry import without_details
from sweeps.storage.trial_status import TrialStatus


def now() -> str:
    """The time as the ledger writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    """What every event says. origin: the other sweep that this one was copied from ("from" in the ledger)."""

    time: str = field(default_factory=now)
    trial: str | None = None
    step: int | None = None
    origin: str | None = field(default=None, name="from")

    @property
    def kind(self) -> str:
        """The value of "event" in the ledger."""
        return str(self.__struct_config__.tag)

    @property
    def moment(self) -> datetime:
        """When it happened; a time that names no zone is UTC."""
        moment = datetime.fromisoformat(self.time)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class SweepStarted(Event, frozen=True, tag="sweep_started"):
    """A driver started. settings: those of the sweep file that may change from start to start."""

    sweep: str
    max_concurrent: int | None = None
    gpus_per_trial: float | None = None
    settings: dict[str, Any] = {}


class Suggested(Event, frozen=True, omit_defaults=False, tag="suggested"):
    """A search suggested a point; its trials, one a seed. designs: which names `params` has for designs.

    In a line that lacks it they are those of an earlier release; see mpdit/model/old_designs.py.
    """

    params: dict[str, Any]
    trials: list[str] = []
    designs: str = "A-F"


class TrialStarted(Event, frozen=True, tag="trial_started"):
    """A worker began, or continued, a trial."""

    trial: str


class Progress(Event, frozen=True, tag="progress"):
    """The metrics of a training at a step. non_finite: the names of metrics whose value was nan or infinite."""

    trial: str
    step: int
    metrics: Mapping[str, float | None]
    non_finite: list[str] = []


class RungWidth(Struct, frozen=True, omit_defaults=True):
    """The score of one EMA width at a rung; `value` is None where the samples were not finite."""

    sigma_rel: float
    value: float | None
    stderr: float | None = None
    left_out: list[float] | None = None
    magnitude_drift: float | None = None
    non_finite: list[str] = []


class RungScored(Event, frozen=True, tag="rung"):
    """A trial was scored on its way. rung_fraction: of its training ("share" in the ledger).

    stop: why the trial is to stop here; None: it goes on.
    """

    trial: str
    step: int
    rung_fraction: float = field(name="share")
    samples: int
    widths: list[RungWidth]
    scoring_seconds: float | None = None
    stop: str | None = None
    non_finite: list[str] = []


class SamplesDrawn(Event, frozen=True, tag="growth"):
    """A grid of samples was drawn at a step of the training. picture: its file's name."""

    trial: str
    step: int
    picture: str


class CellScored(Event, frozen=True, omit_defaults=False, tag="cell"):
    """A cell was scored; `value` is None where its samples were not finite. left_out: the value without each fold.

    more: metrics measured from its features. sampling_seconds: of drawing one sample.
    """

    trial: str
    step: int
    params: dict[str, Any]
    cell: str
    metric: str
    value: float | None
    stderr: float | None = None
    left_out: list[float] | None = None
    more: Mapping[str, float | None] = {}
    magnitude_drift: float | None = None
    noise_floor: float | None = None
    warnings: list[str] = []
    picture: str | None = None
    drawn: int | None = None
    scoring_seconds: float | None = None
    sampling_seconds: float | None = None
    provenance: dict[str, Any] = {}
    non_finite: list[str] = []

    @property
    def key(self) -> str:
        """The cell's name as it is today; `cell` may be the name that an older release gave."""
        return current_cell_key(self.cell, self.params, cell_key)

    @property
    def samples(self) -> int:
        """How many samples it was scored with."""
        return int(self.params["evaluation.samples"])

    @property
    def measured(self) -> dict[str, float | None]:
        """What `more` holds without the details, of which there may be thousands."""
        return without_details(self.more)


class TrialRetried(Event, frozen=True, tag="trial_retried"):
    """A user asked for a trial that had ended. afresh: from its first step; what was reported of it before is void."""

    trial: str
    afresh: bool = False


class TrialEnded(Event, frozen=True, tag="trial_ended"):
    """How a trial ended and what it took; None where that is not known.

    steps_trained: how many steps it took itself: fewer than all where it continued a shorter training, whose time is
    in training_seconds too.
    training_work, scoring_work: what the times are in proportion to. disk_full, bucket_lost, held: whether that is
    why; held: by another sweep, which runs the trial. code: what has trained it
    (pipelines/training_code.py).
    """

    trial: str
    outcome: TrialStatus
    reason: str | None = None
    training_seconds: float | None = None
    training_work: float | None = None
    steps_trained: int | None = None
    scoring_seconds: float | None = None
    scoring_work: float | None = None
    start_seconds: float = 0.0
    energy_joules: float | None = None
    runtime: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    code: str | None = None
    disk_full: bool = False
    bucket_lost: bool = False
    held: bool = False
    non_finite: list[str] = []

    @property
    def training_pace(self) -> float | None:
        """Seconds for a unit of training_work."""
        return _ratio(self.training_seconds, self.training_work)

    @property
    def scoring_pace(self) -> float | None:
        """Seconds for a unit of scoring_work."""
        return _ratio(self.scoring_seconds, self.scoring_work)


class WeightsDropped(Event, frozen=True, tag="weights_dropped"):
    """The weights of a trial that can no longer win were removed."""

    trial: str


class SweepEnded(Event, frozen=True, tag="sweep_ended"):
    """A driver ended: completed, failed or interrupted. reason: the budget that ended it, if one did."""

    outcome: TrialStatus
    reason: str | None = None


class UnknownEvent(Event, frozen=True):
    """An event of another version's kind, or one whose fields we cannot read. line: all of it."""

    line: dict[str, Any]

    @property
    def kind(self) -> str:
        """The value of "event" in the ledger."""
        return str(self.line["event"])


Known = (
    SweepStarted
    | Suggested
    | TrialStarted
    | Progress
    | RungScored
    | SamplesDrawn
    | CellScored
    | TrialRetried
    | TrialEnded
    | WeightsDropped
    | SweepEnded
)
KINDS = frozenset(str(kind.__struct_config__.tag) for kind in Known.__args__)
HEAD = ("time", "event", "trial", "step")  # what a line begins with

_decoder = msgspec.json.Decoder(Known)


def decode(line: bytes) -> Event:
    """The event in a line of a ledger. Raises ValueError where it holds none."""
    try:
        event: Event = _decoder.decode(line)
    except msgspec.ValidationError:
        return _unknown(msgspec.json.decode(line))
    check_time(event.time)
    if isinstance(event, CellScored) and type(event.params.get("evaluation.samples")) is not int:
        raise ValueError("a cell without its number of samples")
    return _completed(event, msgspec.json.decode(line)) if isinstance(event, (SweepStarted, Suggested)) else event


def check_time(text: str) -> None:
    """Raises ValueError for what is no time."""
    datetime.fromisoformat(text)


def encode(event: Event) -> dict[str, Any]:
    """The event as plain values that JSON knows: as its line in the ledger, and as Ray carries it.

    Numbers that are not finite become None, and their names are listed under "non_finite" beside them.
    """
    if isinstance(event, UnknownEvent):
        return event.line
    line = msgspec.to_builtins(event, enc_hook=_plain)
    head = {"time": event.time, "event": event.kind, "trial": event.trial, "step": event.step}
    settings = line.pop("settings", {}) if isinstance(event, SweepStarted) else {}
    rest = {name: value for name, value in line.items() if name not in HEAD}
    if names := _without_non_finite(rest):
        rest["non_finite"] = [*rest.get("non_finite", []), *names]
    for name in ("from", "non_finite"):  # of a cell, whose other fields are written in any case
        if not rest.get(name, True):
            del rest[name]
    return {**head, **rest, **settings}


def from_plain(line: dict[str, Any]) -> Event:
    """The event of which `encode` made plain values. Raises ValueError where they are none."""
    try:
        event: Event = msgspec.convert(line, Known)
    except msgspec.ValidationError:
        return _unknown(line)
    return _completed(event, line)


def _plain(value: Any) -> Any:
    """NumPy's numbers, and metrics that are still in their file."""
    return dict(value) if isinstance(value, Mapping) else float(value)


def _ratio(seconds: float | None, work: float | None) -> float | None:
    return seconds / work if seconds is not None and work else None


def _unknown(line: Any) -> UnknownEvent:
    if not isinstance(line, dict) or not isinstance(line.get("event"), str) or not isinstance(line.get("time"), str):
        raise ValueError("not an event")
    check_time(line["time"])
    trial, step = line.get("trial"), line.get("step")
    return UnknownEvent(
        line=line,
        time=line["time"],
        trial=trial if isinstance(trial, str) else None,
        step=step if isinstance(step, int) else None,
    )


def _completed(event: Event, line: dict[str, Any]) -> Event:
    """The event with what its line says beside its fields: settings under their own names, designs under old ones."""
    if isinstance(event, Suggested) and "designs" not in line:
        return msgspec.structs.replace(event, params=current_values(event.params))
    if not isinstance(event, SweepStarted):
        return event
    known = {*HEAD, *SweepStarted.__struct_encode_fields__}
    settings = {name: value for name, value in line.items() if name not in known}
    return msgspec.structs.replace(event, settings=settings) if settings else event


def _without_non_finite(line: dict[str, Any]) -> list[str]:
    """Put None in the place of each number that is not finite, and of each list that holds one; returns their names.

    A dictionary in a list (a rung's width) lists its own.
    """
    names = []
    for name, value in line.items():
        if isinstance(value, dict):
            names += _without_non_finite(value)
        elif (isinstance(value, list) and any(map(_is_non_finite, value))) or _is_non_finite(value):
            line[name] = None
            names.append(name)
        elif isinstance(value, list):
            for part in (part for part in value if isinstance(part, dict)):
                if own := _without_non_finite(part):
                    part["non_finite"] = own
    return names


def _is_non_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
