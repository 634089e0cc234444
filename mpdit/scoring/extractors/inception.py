"""Inception-v3 as torch-fidelity has it, whose features the FID is measured in."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from mpdit.scoring.extractors.registry import EXTRACTORS, ExtractorKind
from mpdit.scoring.published_weights import FeatureNetwork, PublishedWeights, load_published

PUBLISHED = PublishedWeights(
    "inception",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "MPDIT_INCEPTION_WEIGHTS",
    "--inception-weights FILE",
)


class Inception(nn.Module):
    """torch-fidelity's Inception-v3: uint8 (batch, 3, height, width) → (batch, 2048), resized as in TensorFlow 1."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        torch.load(path, weights_only=True)  # fails for a pickle with code in it, which torch-fidelity would run
        self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))

    def forward(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.network(images)[0])

    def logits(self, features: Tensor) -> Tensor:
        """Return class logits without their bias, as the Inception score takes them: (count, 2048) → (count, 1008)."""
        weight = self.network.fc.weight
        return features.to(weight) @ weight.T


def _build(path: Path) -> FeatureNetwork:
    inception = Inception(path)
    return FeatureNetwork(inception, 2048, inception.logits)


EXTRACTORS.register(
    ExtractorKind(
        "inception", "Inception-v3, the features of the FID", partial(load_published, PUBLISHED, _build), PUBLISHED
    )
)
