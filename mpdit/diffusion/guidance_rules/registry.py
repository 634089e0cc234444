"""What a guidance rule is, and the registry of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from mpdit.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


class Predictions(NamedTuple):
    """What a rule makes one prediction of.

    Attributes:
        conditional: the network's denoised images, (batch, channels, height, width).
        unconditional: the same without the class, or the guide's.
        x: the noisy images that they are estimated from, of the same shape.
        sigma: their noise level.
        step: the level at which the sampler's step starts.
    """

    conditional: Tensor
    unconditional: Tensor
    x: Tensor
    sigma: float
    step: float


class GuidanceRule(Protocol):
    """One rule with its settings: a frozen dataclass with a `name` and a `doc`.

    objectives: the training objectives that it is defined for; None: all.
    """

    name: ClassVar[str]
    doc: ClassVar[str]
    objectives: ClassVar[tuple[str, ...] | None]

    def combine(self, predictions: Predictions, scale: float) -> Tensor:
        """Guide one evaluation; a scale of 1 is never asked for.

        Args:
            predictions: the two, and where they were made.
            scale: the guidance scale.

        Returns:
            The guided denoised images, of the same shape; each image's depends on that image alone.
        """


GUIDANCE_RULES: Registry[type[GuidanceRule]] = Registry("guidance rule", "mpdit.diffusion.guidance_rules")


def each_image(images: Tensor) -> tuple[int, ...]:
    """The axes of one image, for what is measured of each."""
    return tuple(range(1, images.ndim))
