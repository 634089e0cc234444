"""What a training objective is, and the registry of them.

All describe one image x = clean + σ·noise and lead to an estimate D(x; σ) of the clean image, so that
samplers, guidance and scores do not depend on them.
"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mpdit.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


class Objective(Protocol):
    """How an image is noised, what the network predicts, and how its output becomes an image: a frozen dataclass.

    learned_variance: whether the network has a second output, the variance of DDPM's step back. uncertainty: whether
    a learned u divides the loss of each noise level. sigma_data: the standard deviation of the data's values. pixels:
    whether those are pixels, of 8 bits; what has a learned variance needs to know.
    """

    name: ClassVar[str]
    doc: ClassVar[str]
    learned_variance: ClassVar[bool]

    @property
    def uncertainty(self) -> bool: ...

    @property
    def sigma_data(self) -> float: ...

    @property
    def pixels(self) -> bool: ...

    def noise_levels(self, normal: Tensor) -> Tensor:
        """Turn standard normal values (batch,) into noise levels σ (batch,)."""

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return (c_skip, c_out) of D = c_skip·x + c_out·F, each of sigma's shape."""

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Return λ(σ) of λ·‖D − clean‖²: (batch,) → (batch,)."""

    def noise_schedule(self, steps: int) -> Tensor:
        """Return the noise levels of a sampler: (steps + 1,), descending to 0."""


OBJECTIVES: Registry[type[Objective]] = Registry("objective", "mpdit.diffusion.objectives")


def fitted(objective: Objective, sigma_data: float, pixels: bool) -> Objective:
    """Return the objective for data of that standard deviation; it is told of what it has fields for."""
    facts = {"sigma_data": sigma_data, "pixels": pixels}
    known = {field.name for field in fields(objective)}  # type: ignore[arg-type]
    told: Objective = replace(objective, **{name: fact for name, fact in facts.items() if name in known})  # type: ignore[type-var]
    return told


def objective_as_dict(objective: Objective) -> dict[str, Any]:
    """Return name and fields as plain values."""
    return {"name": objective.name, **asdict(objective)}  # type: ignore[call-overload]


def objective_from(written: dict[str, Any]) -> Objective:
    """Read the objective that `objective_as_dict` wrote. Raises InputError for an unknown name."""
    chosen: Objective = OBJECTIVES[written["name"]](**{key: value for key, value in written.items() if key != "name"})
    return chosen
