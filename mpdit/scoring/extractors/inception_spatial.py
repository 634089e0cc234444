"""Inception-v3's spatial features, whose Fréchet distance is the sFID (arXiv 2103.03841), as ADM measures it.

They are the first 7 channels of the 17×17 positions of TensorFlow's `mixed_6/conv`, which torch-fidelity's network
names `Mixed_6d.branch1x1`: 2,023 numbers, in TensorFlow's order.
"""

from functools import partial
from pathlib import Path

from torch import Tensor, nn

from mpdit.scoring.extractors.inception import PUBLISHED, Inception
from mpdit.scoring.extractors.registry import EXTRACTORS, ExtractorKind
from mpdit.scoring.published_weights import FeatureNetwork, load_published

CHANNELS, POSITIONS = 7, 17 * 17


class SpatialInception(nn.Module):
    """uint8 images (batch, 3, height, width) → (batch, 2023)."""

    def __init__(self, inception: Inception) -> None:
        super().__init__()
        self.inception = inception
        self.seen: list[Tensor] = []
        inception.network.Mixed_6d.branch1x1.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.seen.append(output[:, :CHANNELS])

    def forward(self, images: Tensor) -> Tensor:
        self.inception(images)
        return self.seen.pop().permute(0, 2, 3, 1).flatten(1)


def _build(path: Path) -> FeatureNetwork:
    return FeatureNetwork(SpatialInception(Inception(path)), CHANNELS * POSITIONS, statistics=("mu_s", "sigma_s"))


EXTRACTORS.register(
    ExtractorKind(
        "inception_spatial",
        "Inception-v3's spatial features, those of the sFID (arXiv 2103.03841)",
        partial(load_published, PUBLISHED, _build, name="inception_spatial"),
        PUBLISHED,
    )
)
