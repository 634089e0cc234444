"""Small classifiers, whose features score the data set that each of them was trained on.

Those of `digits` and `shapes` come with mpdit; for any other set `pipelines.scoring.train_classifier` trains one, and
leaves NAME.safetensors with its card NAME.json in a folder.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.errors import input_error
from mpdit.scoring.extractor import Extractor

WEIGHTS = Path(__file__).parent.parent / "weights"
FEATURES = 64


class SmallClassifier(nn.Module):
    """uint8 images (batch, channels, resolution, resolution), 8 pixels or more a side → features (batch, FEATURES)."""

    def __init__(self, channels: int, resolution: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.third = nn.Conv2d(32, FEATURES, 3, padding=1)
        halvings = max(0, (resolution // 8).bit_length() - 1)  # down to 4 … 7 positions a side
        self.deeper = nn.ModuleList(nn.Conv2d(FEATURES, FEATURES, 3, stride=2, padding=1) for _ in range(halvings))
        self.classify = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.first(images.float() / 127.5 - 1))
        x = F.relu(self.second(x))
        x = F.relu(self.third(x))
        for layer in self.deeper:
            x = F.relu(layer(x))
        return x.mean(dim=(2, 3))


class Resized(nn.Module):
    """A network behind an antialiased resize to the one size that it takes: uint8 (batch, channels, height, width)."""

    def __init__(self, network: nn.Module, resolution: int) -> None:
        super().__init__()
        self.network, self.resolution = network, resolution

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] == self.resolution:
            return self.network(images)
        return self.network(F.interpolate(images.float(), size=self.resolution, mode="bilinear", antialias=True))


def shipped_classifiers() -> list[str]:
    """Return the names of the classifiers that come with mpdit."""
    return sorted(path.stem for path in WEIGHTS.glob("*.json"))


def extractor_card(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Read what is recorded about a classifier: sha256, shape, held-out accuracy, how it was made; {} without one.

    folder: where it lies; mpdit's own where None, and for the classifiers that come with mpdit.
    """
    path = (WEIGHTS if folder is None or name in shipped_classifiers() else folder) / f"{name}.json"
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return card


def sha256(path: Path) -> str:
    """Return the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def load_classifier(name: str, folder: Path, device: str) -> Extractor:
    """Load the classifier NAME.safetensors of a folder, once a process.

    Raises:
        InputError: the file is not what its card says.
    """
    path, card = folder / f"{name}.safetensors", extractor_card(name, folder)
    stored = sha256(path)
    if stored != card["sha256"]:
        given, allowed = f"sha256 {stored}", f"sha256 {card['sha256']}"
        hint = "reinstall mpdit" if folder == WEIGHTS else "prepare the data again"
        raise input_error(f"{path} is damaged", given=given, allowed=allowed, hint=hint)
    channels, resolution = int(card["channels"]), int(card["resolution"])
    classifier = SmallClassifier(channels, resolution, int(card["classes"]))
    classifier.load_state_dict(load_file(path))
    classifier.eval().requires_grad_(False).to(device)
    resizes = bool(card.get("resizes"))
    return Extractor(
        name=name,
        network=Resized(classifier, resolution) if resizes else classifier,
        weights=f"sha256:{stored}",
        dimensions=FEATURES,
        channels=channels,
        resolution=None if resizes else resolution,
        logits=classifier.classify,
        accuracy=card["held_out_accuracy"],
    )
