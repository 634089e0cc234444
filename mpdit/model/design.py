"""The design ladder: which parts preserve magnitude, from DiT (A) to MP-DiT as published (E), and our own step (F)."""

import dataclasses
from dataclasses import dataclass

from mpdit.errors import input_error, nearest


@dataclass(frozen=True)
class Design:
    """The switches that the ladder sets; each can also be set by itself.

    `map_dit` takes a choice of the public code of arXiv 2505.19122 that the paper does not need: noise levels hashed
    by random frequencies, with no √2 on them.
    """

    cosine_attention: bool  # queries and keys of unit magnitude
    weight_normalization: bool  # rows of unit magnitude on use, scalar gains, no biases
    forced_normalization: bool  # … and also as they are stored, after every optimiser step
    mp_residual: bool  # residual sums that keep the magnitude of uncorrelated streams, gates that start open
    mp_silu: bool  # SiLU/0.596 in place of GELU (MLP) and of SiLU (condition)
    mp_embedding: bool  # Fourier features and class rows of unit magnitude, and their mp_sum
    mp_positions: bool  # positions of unit magnitude, and their mp_sum with the patches
    layer_norm: bool  # before each modulation
    renormalized: bool = False  # residual sums, attention outputs and modulations are brought back to unit magnitude
    map_dit: bool = False

    def __post_init__(self) -> None:
        if self.forced_normalization and not self.weight_normalization:
            raise input_error(
                "forced weight normalisation keeps normalised weights normalised, and these are not",
                given="forced_normalization: true, weight_normalization: false",
                hint="weight_normalization: true",
            )
        if self.renormalized and not self.mp_residual:
            raise input_error(
                "sums of unit magnitude are brought back to it, and these are plain sums",
                given="renormalized: true, mp_residual: false",
                hint="mp_residual: true",
            )


A = Design(False, False, False, False, False, False, False, layer_norm=True)
B = dataclasses.replace(A, cosine_attention=True)
C = dataclasses.replace(B, weight_normalization=True)
D = dataclasses.replace(C, forced_normalization=True)
E = Design(True, True, True, True, True, True, True, layer_norm=False)
F = dataclasses.replace(E, renormalized=True)
DESIGNS = {"A": A, "B": B, "C": C, "D": D, "E": E, "F": F}
SWITCHES = tuple(field.name for field in dataclasses.fields(Design) if field.name != "map_dit")
VARIANTS = {"map-dit": {"map_dit": True, "renormalized": False}}  # name: the fields of the design that it sets


def choose_design(name: str, switches: dict[str, bool] | None = None, variant: str | None = None) -> Design:
    """Return the design of that name on the ladder, with single switches set differently. Raises InputError.

    Where `renormalized` is not set by itself, the sums of a design that has none of its own are brought back too.
    """
    if name not in DESIGNS:
        raise input_error(f"no design {name!r}", given=name, allowed=", ".join(DESIGNS))
    if variant is not None and variant not in VARIANTS:
        raise input_error(
            f"no variant {variant!r}", given=variant, nearest=nearest(variant, VARIANTS), allowed=", ".join(VARIANTS)
        )
    own, given, forced = DESIGNS[name], switches or {}, VARIANTS.get(variant or "", {})
    for switch, value in forced.items():
        if given.get(switch, value) != value:
            raise input_error(
                f"the variant {variant} sets {switch} itself",
                given=f"{switch}: {str(not value).lower()}",
                hint=f"leave {switch} or the variant out",
            )
    sums = given.get("mp_residual", own.mp_residual)
    implied = {"renormalized": sums and (own.renormalized or not own.mp_residual)}
    return dataclasses.replace(own, **{**implied, **given, **forced})
