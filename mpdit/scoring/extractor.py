"""A feature extractor: a network whose features say how alike two sets of images are."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpdit.errors import input_error


@dataclass(frozen=True)
class Extractor:
    """A network of features, and the hash of its weights: distances of one hash can be compared.

    Attributes:
        name: as in a metric's name.
        network: from uint8 images (batch, channels, height, width) to features (batch, dimensions).
        weights: their hash, "sha256:…".
        dimensions: of a feature vector.
        channels: of the images that it takes; None for any (grey is repeated to three channels).
        resolution: of the images that it takes; None for any.
        logits: from features to class logits, where the network has them.
        accuracy: of a small classifier, on images that it was not trained on.
        statistics: what a reference of ADM's format calls their mean and covariance.
    """

    name: str
    network: nn.Module
    weights: str
    dimensions: int
    channels: int | None = None
    resolution: int | None = None
    logits: Callable[[Tensor], Tensor] | None = None
    accuracy: float | None = None
    statistics: tuple[str, str] = ("mu", "sigma")

    @torch.inference_mode()
    def features(self, images: Tensor, batch: int = 500) -> Tensor:
        """Return the features of uint8 images (count, channels, height, width): fp32 (count, dimensions).

        Raises:
            InputError: for other images.
        """
        self.check(images)
        device = next(self.network.parameters()).device
        parts = []
        for part in images.split(batch):
            part = part.to(device)
            if self.channels is None and part.shape[1] == 1:
                part = part.expand(-1, 3, -1, -1)
            parts.append(self.network(part).float())
        return torch.cat(parts)

    def check(self, images: Tensor) -> None:
        """Raise InputError for images of a size or type that the network was not made for."""
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise input_error(
                f"the features of {self.name!r} are those of bytes",
                given=f"{images.dtype} {tuple(images.shape)}",
                allowed="uint8 (count, channels, height, width)",
            )
        channels, size = images.shape[1], tuple(images.shape[2:])
        if channels != self.channels and not (self.channels is None and channels in (1, 3)):
            raise input_error(
                f"{self.name!r} cannot see images of {channels} channels",
                given=channels,
                allowed=self.channels or "1, 3",
            )
        if self.resolution is not None and size != (self.resolution, self.resolution):
            raise input_error(
                f"{self.name!r} cannot see images of {size[0]}×{size[1]} pixels",
                given=f"{size[0]}×{size[1]}",
                allowed=f"{self.resolution}×{self.resolution}",
            )
