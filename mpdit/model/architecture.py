"""The sizes of the transformer, and what fixes its shape, in plain values."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from mpdit.errors import input_error
from mpdit.model.attention.registry import ATTENTIONS, Attention
from mpdit.model.attention.softmax import Softmax
from mpdit.model.design import DESIGNS, Design
from mpdit.model.mlp.registry import MLPS, Mlp
from mpdit.model.mlp.silu import Silu
from mpdit.model.modulation.registry import parse_modulation
from mpdit.model.norm.layer import Layer
from mpdit.model.norm.registry import NORMS, Norm
from mpdit.model.old_designs import current_switches
from mpdit.model.positions.registry import POSITIONS, Positions
from mpdit.model.positions.table import Table
from mpdit.registry import Registry, as_fields, choose_from

SIZES = {  # name: (depth, width, heads); XS to XL as published, nano for 8×8 digits
    "nano": (4, 64, 4),
    "XS": (6, 256, 4),
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
PARAMETRIZATIONS = ("sp", "mup")  # of the learning rates: mpdit/model/mup.py
SOFTMAX, SILU, TABLE, LAYER = Softmax(), Silu(), Table(), Layer()
KINDS: dict[str, Registry[Any]] = {"attention": ATTENTIONS, "mlp": MLPS, "positions": POSITIONS, "norm": NORMS}


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes the network's shape, in plain values; the header of a file of weights has them too."""

    depth: int
    width: int
    heads: int
    patch: int
    modulation: str
    channels: int  # of the images
    resolution: int  # of the images, in pixels
    classes: int
    learned_variance: bool = False  # a second output of the images' shape
    design: Design = DESIGNS["F"]
    base_width: int | None = None  # the width at which µP and the standard parametrisation meet; None: the standard one
    attention: Attention = SOFTMAX
    mlp: Mlp = SILU
    positions: Positions = TABLE
    norm: Norm = LAYER
    skips: bool = False  # long skips from the first half of the blocks to the second

    def __post_init__(self) -> None:
        parse_modulation(self.modulation)
        check_kinds(self.design, self.attention, self.mlp, self.positions, self.norm)
        if self.resolution % self.patch:
            divisors = [n for n in range(1, self.resolution + 1) if self.resolution % n == 0]
            raise input_error(
                f"patch {self.patch} does not divide the images' {self.resolution} pixels",
                given=self.patch,
                allowed=divisors,
            )
        if self.width % (2 * self.heads):
            raise input_error(f"{self.heads} heads do not divide width {self.width} into even parts", given=self.heads)
        self.positions.check(self.width // self.heads)
        if self.width % 4:
            raise input_error(f"2-D positions need a width divisible by 4, not {self.width}", given=self.width)

    @property
    def out_channels(self) -> int:
        """The channels of the network's output: those of the images, and as many for a learned variance."""
        return self.channels * (2 if self.learned_variance else 1)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values; a kind as its name and the settings that are not the default ones."""
        plain = dataclasses.asdict(self)
        for field in KINDS:
            plain[field] = as_fields(getattr(self, field))
        return plain


def architecture_from(fields: dict[str, Any]) -> Architecture:
    """Read the architecture that `as_dict` wrote; older files name no kinds and mean the default ones."""
    chosen = {field: choose_from(registry, fields[field]) for field, registry in KINDS.items() if field in fields}
    return Architecture(**{**fields, **chosen, "design": Design(**current_switches(fields["design"]))})


def check_kinds(design: Design, attention: Attention, mlp: Mlp, positions: Positions, norm: Norm) -> None:
    """Raise InputError for kinds of layers that do not go with the design, or with each other."""
    attention.check(design)
    mlp.check(design)
    if positions.turns_heads and not can_be_turned(attention):
        others = ", ".join(kind.name for kind in ATTENTIONS if can_be_turned(kind))
        raise input_error(
            f"{positions.name} turns queries and keys, and the attention {attention.name} has none that it may turn",
            given=f"attention: {attention.name}, positions: {positions.name}",
            allowed=f"attention: {others}; or positions: table",
        )
    if norm != LAYER and not design.layer_norm:
        raise input_error(
            f"there is no place for the norm {norm.name} in a design whose layers keep magnitudes",
            given=f"norm: {norm.name}, in a design without layer_norm",
            hint="design: A to D, or layer_norm: true",
        )


def can_be_turned(attention: Any) -> bool:
    """Whether an attention has queries and keys whose products are all that it takes from them."""
    return bool(getattr(attention, "turns_heads", False))
