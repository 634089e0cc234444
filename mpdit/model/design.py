"""The design ladder: which parts of the transformer preserve magnitude, from DiT as published (A) to MP-DiT (E)."""

import dataclasses
from dataclasses import dataclass

from mpdit.errors import input_error, nearest


@dataclass(frozen=True)
class Design:
    """The switches that the ladder sets; each can also be set by itself.

    `map_dit` takes the choices of the public code of arXiv 2505.19122 where ours differ: noise levels hashed by
    random frequencies, no √2 on them, streams not brought back to unit magnitude.
    """

    cosine_attention: bool  # queries and keys of unit magnitude
    weight_normalization: bool  # rows of unit magnitude on use, scalar gains, no biases
    forced_normalization: bool  # … and also as they are stored, after every optimiser step
    mp_residual: bool  # residual sums that keep magnitude, gates that start open
    mp_silu: bool  # SiLU/0.596 in place of GELU (MLP) and of SiLU (condition)
    mp_embedding: bool  # Fourier features and class rows of unit magnitude, and their mp_sum
    mp_positions: bool  # positions of unit magnitude, and their mp_sum with the patches
    layer_norm: bool  # before each modulation
    map_dit: bool = False

    def __post_init__(self) -> None:
        if self.forced_normalization and not self.weight_normalization:
            raise input_error(
                "forced weight normalisation keeps normalised weights normalised, and these are not",
                given="forced_normalization: true, weight_normalization: false",
                hint="weight_normalization: true",
            )

    @property
    def renormalized(self) -> bool:
        """Whether the residual stream is brought back to unit magnitude, token by token, after each sum."""
        return self.mp_residual and not self.map_dit


A = Design(False, False, False, False, False, False, False, layer_norm=True)
B = dataclasses.replace(A, cosine_attention=True)
C = dataclasses.replace(B, weight_normalization=True)
D = dataclasses.replace(C, forced_normalization=True)
E = Design(True, True, True, True, True, True, True, layer_norm=False)
DESIGNS = {"A": A, "B": B, "C": C, "D": D, "E": E}
SWITCHES = tuple(field.name for field in dataclasses.fields(Design) if field.name != "map_dit")
VARIANTS = {"map-dit": {"map_dit": True}}  # name: the fields of the design that it sets


def choose_design(name: str, switches: dict[str, bool] | None = None, variant: str | None = None) -> Design:
    """Return the design of that name on the ladder, with single switches set differently. Raises InputError."""
    if name not in DESIGNS:
        raise input_error(f"no design {name!r}", given=name, allowed=", ".join(DESIGNS))
    if variant is not None and variant not in VARIANTS:
        raise input_error(
            f"no variant {variant!r}", given=variant, nearest=nearest(variant, VARIANTS), allowed=", ".join(VARIANTS)
        )
    return dataclasses.replace(DESIGNS[name], **(switches or {}), **VARIANTS.get(variant or "", {}))
