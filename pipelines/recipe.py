"""The recipe: everything one training run needs, checked."""

import os
import shutil
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from mpdit.data.dataset import Dataset
from mpdit.data.digits import Digits
from mpdit.data.registry import DATASETS, open_dataset
from mpdit.diffusion.objectives.edm import Edm
from mpdit.diffusion.objectives.registry import OBJECTIVES, Objective, fitted
from mpdit.errors import input_error
from mpdit.model.architecture import PARAMETRIZATIONS, SIZES, Architecture, check_kinds
from mpdit.model.attention.registry import ATTENTIONS
from mpdit.model.attention.softmax import Softmax
from mpdit.model.design import DESIGNS, SWITCHES, VARIANTS, Design, choose_design
from mpdit.model.mlp.registry import MLPS
from mpdit.model.mlp.silu import Silu
from mpdit.model.modulation.registry import MODULATIONS, modulation_name, parse_modulation
from mpdit.model.norm.layer import Layer
from mpdit.model.norm.registry import NORMS
from mpdit.model.old_designs import current_model
from mpdit.model.positions.registry import POSITIONS
from mpdit.model.positions.table import Table
from mpdit.training.ema import check_sigma_rel
from mpdit.training.learning_rate import LearningRate
from mpdit.training.lr_schedules.registry import LR_SCHEDULES
from mpdit.training.optimizers.adam import Adam
from mpdit.training.optimizers.registry import OPTIMIZERS
from pipelines.known_facts import DatasetFacts, dataset_facts
from pipelines.settings import POST_HOC, KindName, KindNames, OneOf, Settings, known

MAP_DIT_CLIP = 0.1
WIDEST = 65_536  # channels; no machine trains more
BF16_PAYS_FROM = 256  # channels, on a CPU with AMX
COMPILE_PAYS_FROM = 5000  # steps; compiling takes about as long as hundreds of small steps


def _width(value: float) -> float:
    if value:
        check_sigma_rel(value)
    return value


def _length(value: float) -> float:
    if value > 1 and value != int(value):
        raise input_error("a number of steps is whole", given=value, allowed="0 to 1 (a share of the run), 2, 3, 4 …")
    return value


SigmaRel = Annotated[float, AfterValidator(_width)]
Modulation = Annotated[
    str, AfterValidator(lambda text: modulation_name(parse_modulation(text))), KindNames(MODULATIONS)
]


class Model(Settings):
    """The network."""

    size: Annotated[str, known(SIZES, "model size")] = "nano"
    width: int | None = None  # the size's own; heads keep their channels, so their number follows it
    patch: int = Field(2, ge=1)
    modulation: Modulation = "scale+shift+gate"
    attention: Annotated[Any, OneOf(ATTENTIONS, "softmax")] = Softmax()
    mlp: Annotated[Any, OneOf(MLPS, "silu")] = Silu()
    positions: Annotated[Any, OneOf(POSITIONS, "table")] = Table()
    norm: Annotated[Any, OneOf(NORMS, "layer")] = Layer()
    skips: bool = False  # long skips between mirrored blocks, with gains that start at 0
    design: Annotated[str, known(DESIGNS, "design")] = "F"
    variant: Annotated[str, known(VARIANTS, "variant")] | None = None
    cosine_attention: bool | None = None  # the design's own, as all that follow
    weight_normalization: bool | None = None
    forced_normalization: bool | None = None
    mp_residual: bool | None = None
    mp_silu: bool | None = None
    mp_embedding: bool | None = None
    mp_positions: bool | None = None
    layer_norm: bool | None = None
    renormalized: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_named_today(cls, given: Any) -> Any:
        """An earlier release's E is F."""
        return current_model(given)

    def chosen_design(self) -> Design:
        """The design with its single switches set. Raises InputError where they contradict each other."""
        switches = {name: value for name in SWITCHES if (value := getattr(self, name)) is not None}
        return choose_design(self.design, switches, self.variant)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(depth, width, heads)."""
        depth, width, heads = SIZES[self.size]
        return (depth, width, heads) if self.width is None else (depth, self.width, self.width // self.head_channels)

    @property
    def head_channels(self) -> int:
        """Channels of one attention head: the size's, at every width."""
        _, width, heads = SIZES[self.size]
        return width // heads

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "Model":
        if self.width is not None and (not 1 <= self.width <= WIDEST or self.width % self.head_channels):
            raise input_error(
                f"width {self.width} is not a whole number of {self.size}'s attention heads",
                given=self.width,
                allowed=f"multiples of {self.head_channels} up to {WIDEST:,}",
            )
        return self

    @model_validator(mode="after")
    def _design_holds(self) -> "Model":
        check_kinds(self.chosen_design(), self.attention, self.mlp, self.positions, self.norm)
        return self


class Optimizer(Settings):
    """The optimiser and its learning-rate schedule.

    `warmup` and `decay_from` are whole numbers of steps, or up to 1 shares of the run. Only in steps is a run the
    beginning of every longer one.
    """

    name: Annotated[Any, OneOf(OPTIMIZERS, "adam")] = Adam()
    schedule: Annotated[str, KindName(LR_SCHEDULES)] = "inverse_sqrt"
    clip: Annotated[float, Field(gt=0)] | None = None  # the largest norm of the whole gradient

    lr: float = Field(0.1, gt=0)  # of design F; A wants 0.006: docs/defaults.md
    parametrization: Annotated[str, known(PARAMETRIZATIONS, "parametrization")] = "sp"
    base_width: int = Field(64, ge=1, le=WIDEST)  # under mup: where `lr` is every parameter's rate; 64 is nano's width
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    warmup: Annotated[float, Field(ge=0), AfterValidator(_length)] = 0.03
    decay_from: Annotated[float, Field(gt=0), AfterValidator(_length)] = 0.4

    @property
    def betas(self) -> tuple[float, float]:
        """Those of Adam."""
        return self.beta1, self.beta2


class Ema(Settings):
    """The width that a single run is scored and sampled at; 0 is the raw weights. Not part of the training."""

    sigma_rel: Annotated[SigmaRel, POST_HOC] = 0.1


class Runtime(Settings):
    """How the run is computed; `auto` is resolved at its first start and kept with it."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto"] | bool = "auto"
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"  # samples at once on one process


class Recipe(Settings):
    """Everything one training run needs."""

    model: Model = Model()
    data: Annotated[Any, OneOf(DATASETS, "digits", is_section=True)] = Digits()
    objective: Annotated[Any, OneOf(OBJECTIVES, "edm", is_section=True)] = Edm()
    optimizer: Optimizer = Optimizer()
    ema: Ema = Ema()
    steps: int = Field(600, ge=1, le=1_000_000_000)
    batch: int = Field(128, ge=1)
    label_dropout: float = Field(0.1, ge=0, le=1)
    seed: int = Field(0, ge=0)
    runtime: Runtime = Runtime()

    @model_validator(mode="after")
    def _heads_divide_the_base_width(self) -> "Recipe":
        """A base width is a width that the model, or a size as it is, can have."""
        base, part = self.optimizer.base_width, self.model.head_channels
        shipped = {width for _, width, _ in SIZES.values()}
        if self.optimizer.parametrization == "mup" and base % part and base not in shipped:
            raise input_error(
                f"base width {base} is not a whole number of {self.model.size}'s attention heads",
                given=f"base_width: {base}",
                allowed=f"multiples of {part}, or a size's own width: {', '.join(map(str, sorted(shipped)))}",
                hint="base_width: 64, which suits every size",
            )
        return self

    @model_validator(mode="after")
    def _optimizer_trains_the_design(self) -> "Recipe":
        self.optimizer.name.check(self.model.chosen_design())
        return self

    @property
    def learning_rate(self) -> LearningRate:
        """The learning rate of each step, which the factors of mpdit/model/mup.py multiply."""
        o = self.optimizer
        return LearningRate(o.lr, o.schedule, o.warmup, o.decay_from)

    @property
    def can_go_on(self) -> bool:
        """Whether a longer training of this recipe has this one as its beginning."""
        return not self.learning_rate.knows_the_end

    @property
    def clip(self) -> float | None:
        """The largest norm of the whole gradient; the public MP-DiT code's own in its variant."""
        return (
            MAP_DIT_CLIP if self.optimizer.clip is None and self.model.chosen_design().map_dit else self.optimizer.clip
        )

    @property
    def dataset(self) -> Dataset:
        """The data, opened once a process. Raises InputError where there is none."""
        return open_dataset(self.data)

    @property
    def facts(self) -> DatasetFacts:
        """What a plan needs to know of the data, which is opened where that is not known yet. Raises InputError."""
        return dataset_facts(self.data)

    def architecture(self, dataset: Dataset | DatasetFacts) -> Architecture:
        """The network for this data. Raises InputError where recipe and data do not fit."""
        if self.batch > len(dataset):
            raise input_error(
                f"a batch of {self.batch} is more than the {len(dataset)} samples of {dataset.name}",
                given=f"batch: {self.batch}",
                allowed=f"1 to {len(dataset)}",
            )
        depth, width, heads = self.model.shape
        return Architecture(
            depth=depth,
            width=width,
            heads=heads,
            patch=self.model.patch,
            modulation=self.model.modulation,
            channels=dataset.channels,
            resolution=dataset.resolution,
            classes=dataset.classes,
            learned_variance=self.objective.learned_variance,
            design=self.model.chosen_design(),
            base_width=self.optimizer.base_width if self.optimizer.parametrization == "mup" else None,
            attention=self.model.attention,
            mlp=self.model.mlp,
            positions=self.model.positions,
            norm=self.model.norm,
            skips=self.model.skips,
        )

    def prediction(self, dataset: Dataset | DatasetFacts) -> Objective:
        """The objective for this data."""
        return fitted(self.objective, dataset.std, dataset.is_pixels)


def resolve_runtime(recipe: Recipe, threads: int | None = None) -> Recipe:
    """The recipe with every `auto` of its runtime settled for this machine."""
    import torch

    asked = recipe.runtime
    device = asked.device if asked.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise input_error(
            "the recipe asks for a GPU and this machine shows none", given="device: cuda", hint="device: auto"
        )
    compiler = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    settled = Runtime(
        device=device,
        threads=asked.threads if asked.threads != "auto" else threads or os.cpu_count() or 1,
        precision=asked.precision if asked.precision != "auto" else ("bf16" if _bf16_pays(recipe, device) else "fp32"),
        compile=asked.compile if asked.compile != "auto" else compiler and recipe.steps >= COMPILE_PAYS_FROM,
        micro_batch=asked.micro_batch,
    )
    return recipe.model_copy(update={"runtime": settled})


def _bf16_pays(recipe: Recipe, device: str) -> bool:
    import torch

    return device == "cuda" or (recipe.model.shape[1] >= BF16_PAYS_FROM and torch.cpu._is_amx_tile_supported())
