"""What a score belongs to: an evaluation (how a finished run is scored) and a cell (an evaluation of one EMA width)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from mpdit.diffusion.guidance_rules.cfg import Cfg
from mpdit.diffusion.guidance_rules.registry import GUIDANCE_RULES
from mpdit.diffusion.samplers.registry import SAMPLERS
from mpdit.diffusion.sampling_options import Guidance, SamplingOptions, evaluations
from mpdit.diffusion.sampling_schedules.default import Default
from mpdit.diffusion.sampling_schedules.listed import Listed
from mpdit.diffusion.sampling_schedules.registry import SAMPLING_SCHEDULES
from mpdit.errors import input_error
from mpdit.inference.block_choices.all import All
from mpdit.inference.block_choices.registry import BLOCK_CHOICES
from mpdit.inference.weight_formats.fp32 import Fp32
from mpdit.inference.weight_formats.registry import WEIGHT_FORMATS
from mpdit.schedules import edm_levels
from mpdit.scoring.intervals import FOLDS
from pipelines.identity import IDENTITY_VERSION, name_of, plugins
from pipelines.recipe import Ema, SigmaRel
from pipelines.scoring.metrics.registry import METRICS, TOGETHER, measurable
from pipelines.settings import POST_HOC, KindNames, OneOf, Settings

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE_BATCH = 250  # samples drawn at a time; part of what a number means, so not a setting
SIGMA_RELS_AT_A_RUNG = 3
REFERENCE, INTERVAL = "evaluation.reference", "evaluation.guidance_interval"


def _known_metrics(names: list[str]) -> list[str]:
    for name in names:
        if name not in TOGETHER and METRICS[name].measure is None:
            raise input_error(
                f"{name} is known of every cell, and is not measured from its samples",
                given=name,
                allowed=", ".join(measurable()),
                hint="leave it out: mpdit rank --by takes it",
            )
    return sorted(set(names))


def _named_by_content(reference: str) -> str:
    """A file with the hash of what it holds now: FILE@sha256:…; one that was named before stays as it is."""
    return reference if "@sha256:" in reference else f"{reference}@sha256:{_file_hash(reference)}"


def _file_hash(path: str) -> str:
    from mpdit.scoring.reference_file import file_hash

    return file_hash(Path(path))


class Guide(Settings):
    """The network that makes guidance's second prediction: another average of the same run (arXiv 2406.02507).

    step: of its snapshot, the nearest that is kept: a share of the run up to 1, a step of its training above.
    sigma_rel: its EMA width, relative to its own step; null: the cell's at the end of the run, before it the wider
    tracked one, which every snapshot has. labels: whether it is asked with the class or without one; null: kept where
    step or width is another, empty where neither is, which is classifier-free guidance.
    """

    step: float | int = 1.0
    sigma_rel: SigmaRel | None = None
    labels: Literal["kept", "empty"] | None = None

    @field_validator("step")
    @classmethod
    def _share_or_step(cls, step: float) -> float:
        if step <= 0 or (step > 1 and not isinstance(step, int)):
            raise input_error(
                "a guide's step is a share of its run, or a step of it",
                given=f"step: {step}",
                allowed="0.0625, a sixteenth of the run; 1, its end; a whole number above 1, that step",
            )
        return float(step) if step <= 1 else step

    @property
    def is_own(self) -> bool:
        """Whether the guide has the weights of the network that it guides."""
        return self.step == 1 and self.sigma_rel is None

    @property
    def empty_label(self) -> bool:
        """Whether it is asked without the class."""
        return self.labels == "empty" or (self.labels is None and self.is_own)


# what a cell's parameters leave out where nothing is set
UNSAID = {"schedule": Default(), "guide": Guide(), "blocks": All(), "weights": Fp32()}


class Evaluation(Settings):
    """How a finished run is scored. extractor auto: the classifier of the data itself; metrics: those besides.

    classes: in which proportions samples are asked for: the data's own, or all equally often. In both, every first few
    samples are spread evenly over the classes. in_turn: as sweeps begun before this setting do, 0, 1, 2, … in turn.
    """

    samples: int = Field(2000, ge=FOLDS)
    sampler: Annotated[Any, OneOf(SAMPLERS, "dpm++2m"), POST_HOC] = SAMPLERS["dpm++2m"]
    steps: Annotated[int, POST_HOC] = Field(12, ge=1)
    schedule: Annotated[Any, OneOf(SAMPLING_SCHEDULES, "list"), POST_HOC] = Default()
    guidance: Annotated[float, POST_HOC] = Field(1.0, ge=0)
    guidance_rule: Annotated[Any, OneOf(GUIDANCE_RULES, "cfg"), POST_HOC] = Cfg()
    guidance_interval: Annotated[tuple[float, float] | None, POST_HOC] = None  # σ low < σ ≤ σ high; null: all levels
    guide: Annotated[Guide, POST_HOC] = Guide()
    blocks: Annotated[Any, OneOf(BLOCK_CHOICES, "list"), POST_HOC] = All()  # those that are run
    weights: Annotated[Any, OneOf(WEIGHT_FORMATS, "fp32"), POST_HOC] = Fp32()  # how the blocks' are rounded
    seed: int = Field(0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    extractor: str = "auto"
    reference: Annotated[str, AfterValidator(_named_by_content)] | None = None  # an .npz in ADM's format; the data set
    classes: Literal["as_data", "balanced", "in_turn"] = "as_data"
    metrics: Annotated[list[str], AfterValidator(_known_metrics), KindNames(METRICS)] = Field(default_factory=list)

    @field_validator("guidance_interval", mode="before")
    @classmethod
    def _ordered(cls, value: Any) -> Any:
        if value is None:
            return None
        numbers = isinstance(value, (list, tuple)) and all(type(bound) in (int, float) for bound in value)
        if not numbers or len(value) != 2 or not 0 <= value[0] < value[1]:
            raise input_error(
                "a guidance interval is two noise levels, the lower one first",
                given=value,
                allowed="[σ low, σ high], as [0.3, 5.0]; null guides at every level",
            )
        return (float(value[0]), float(value[1]))

    @property
    def has_guide(self) -> bool:
        """Whether a second network is evaluated."""
        return self.guidance != 1 and not self.guide.is_own

    @property
    def as_drawn(self) -> "Evaluation":
        """The evaluation without what does not matter to its samples: how it would guide, where it does not."""
        unused: dict[str, Any] = {}
        if self.guidance == 1:
            unused |= {"guidance_rule": Cfg(), "guidance_interval": None, "guide": Guide()}
        if isinstance(self.schedule, Listed):
            unused["steps"] = len(self.schedule.sigmas)
        return self.model_copy(update=unused) if unused else self

    @property
    def network_evaluations(self) -> int:
        """NFE of one sample, to weigh the work: where guidance has an interval, as on EDM's levels."""
        return evaluations(self.sampling, self.sampling.levels(edm_levels))

    def nfe(self, noise_schedule: "Callable[[int], Tensor]") -> int:
        """NFE of one sample on an objective's levels."""
        return evaluations(self.sampling, self.sampling.levels(lambda steps: noise_schedule(steps).tolist()))

    @property
    def sampling(self) -> SamplingOptions:
        """How its samples are drawn."""
        guidance = Guidance(self.guidance, self.guidance_interval, self.guidance_rule, self.guide.empty_label)
        return SamplingOptions(self.sampler, self.steps, guidance, self.schedule)


@dataclass(frozen=True)
class Cell:
    """One point to score: an EMA width and an evaluation."""

    sigma_rel: float
    evaluation: Evaluation

    @property
    def params(self) -> dict[str, Any]:
        """Its settings by axis path."""
        unsaid = {name for name, plain in UNSAID.items() if getattr(self.evaluation, name) == plain}
        given = self.evaluation.model_dump(mode="json", exclude_none=True, exclude=unsaid)
        return {"ema.sigma_rel": self.sigma_rel, **_by_path(given, "evaluation")}

    @property
    def key(self) -> str:
        """Ten hexadecimal digits that name the cell: the same settings always have the same key."""
        return cell_key(self.params, plugins(self.evaluation))

    def with_samples(self, samples: int) -> "Cell":
        """The same cell, scored with another number of samples."""
        return Cell(self.sigma_rel, self.evaluation.model_copy(update={"samples": samples}))


def cell_key(params: Mapping[str, Any], plugins: Mapping[str, str] | None = None) -> str:
    """The key of the cell with these parameters. plugins: {distribution: version} of those that it uses."""
    given = {"evaluation.classes": "in_turn", **params}
    left_out = {**_default_params(), "evaluation.classes": "in_turn"}
    changed = {path: value for path, value in given.items() if value != left_out.get(path)}
    if REFERENCE in changed:
        changed[REFERENCE] = str(changed[REFERENCE]).rpartition("@")[2]  # what it holds, not where it is
    if INTERVAL in changed and str(changed.get("evaluation.sampler")) == "heun":
        changed["interval"] = "by step"  # before, the second evaluation of a step was decided for itself
    return name_of({"version": IDENTITY_VERSION, "params": changed, "plugins": plugins or {}})


@cache
def _default_params() -> dict[str, Any]:
    """The parameters of a cell in which nothing is set."""
    return Cell(Ema().sigma_rel, Evaluation()).params


def evaluation_of(params: Mapping[str, Any]) -> Evaluation:
    """The evaluation in a cell's parameters."""
    fields: dict[str, Any] = {"classes": "in_turn"}  # of a cell that was scored before there was a choice
    for path, value in sorted(params.items()):  # a kind before its settings
        first, *parents, last = path.split(".")
        if first != "evaluation":
            continue
        place = fields
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                place[parent] = {"name": place[parent]} if parent in place else {}
            place = place[parent]
        place[last] = value
    return Evaluation(**fields)


def _by_path(fields: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Fields by dotted path; a kind's name stands at the path of the kind."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        path = prefix if name == "name" else f"{prefix}.{name}"
        found |= _by_path(value, path) if isinstance(value, dict) else {path: value}
    return found
