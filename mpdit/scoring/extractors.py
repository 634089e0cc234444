"""Feature extractors: networks whose features say how alike two sets of images are, and where their weights come from.

`digits` and `shapes` come with mpdit; `inception` is torch-fidelity's own Inception-v3; `dinov2` is in
mpdit/scoring/dinov2.py; any other name is a small classifier that `train_classifier` has left in a folder.
"""

import hashlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.errors import input_error, nearest

WEIGHTS = Path(__file__).parent.parent / "weights"
SHIPPED = ("digits", "shapes")
DOWNLOAD_PATIENCE = 20  # seconds without an answer


class SmallClassifier(nn.Module):
    """uint8 images (batch, channels, resolution, resolution), 8 pixels or more a side → features (batch, 64)."""

    def __init__(self, channels: int, resolution: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.third = nn.Conv2d(32, 64, 3, padding=1)
        halvings = max(0, (resolution // 8).bit_length() - 1)  # down to 4 … 7 positions a side
        self.deeper = nn.ModuleList(nn.Conv2d(64, 64, 3, stride=2, padding=1) for _ in range(halvings))
        self.classify = nn.Linear(64, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.first(images.float() / 127.5 - 1))
        x = F.relu(self.second(x))
        x = F.relu(self.third(x))
        for layer in self.deeper:
            x = F.relu(layer(x))
        return x.mean(dim=(2, 3))


class Resized(nn.Module):
    """A network that sees images of any size at its own: uint8 (batch, channels, height, width), antialiased."""

    def __init__(self, network: nn.Module, resolution: int) -> None:
        super().__init__()
        self.network, self.resolution = network, resolution

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] == self.resolution:
            return self.network(images)
        return self.network(F.interpolate(images.float(), size=self.resolution, mode="bilinear", antialias=True))


@dataclass(frozen=True)
class Extractor:
    """A network of features and the hash of its weights, by which two distances are known to be comparable.

    name: as in a metric's name. channels, resolution: of the images that it takes; None is any (grey is repeated to
    three channels). logits: from features to class logits, where the network has them.
    """

    name: str
    network: nn.Module
    weights: str  # "sha256:…"
    dimensions: int
    channels: int | None = None
    resolution: int | None = None
    logits: Callable[[Tensor], Tensor] | None = None
    accuracy: float | None = None  # of a small classifier, on images that it never saw

    @torch.inference_mode()
    def features(self, images: Tensor, batch: int = 500) -> Tensor:
        """uint8 (count, channels, height, width) → fp32 (count, dimensions). Raises InputError for other images."""
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
        """Raises InputError for images of a size or type that the network was not made for."""
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


@dataclass(frozen=True)
class Download:
    """Weights that others publish: where, and what they must hash to."""

    url: str
    sha256: str
    variable: str  # the environment variable that names a file of them

    @property
    def file(self) -> str:
        """The file's own name."""
        return self.url.rsplit("/", 1)[1]


DOWNLOADS = {
    "inception": Download(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "MPDIT_INCEPTION_WEIGHTS",
    ),
    "dinov2": Download(
        "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        "MPDIT_DINOV2_WEIGHTS",
    ),
}


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_file(name: str) -> Path:
    """Where a published extractor's weights lie or would lie: what its variable names, or a file in torch's cache."""
    download = DOWNLOADS[name]
    given = os.environ.get(download.variable)
    return Path(given) if given else Path(torch.hub.get_dir()) / "checkpoints" / download.file


def find_weights(name: str) -> Path:
    """The file of a published extractor's weights: named by its variable, in torch's cache, or downloaded into it.

    Raises InputError, saying where to get the file, when there is none. Called before a sweep trains anything.
    """
    path, variable = weights_file(name), DOWNLOADS[name].variable
    if path.is_file():
        return path
    if os.environ.get(variable):
        raise _missing(name, f"{variable} names {path}, where there is no file")
    _download(name, path)
    return path


def _download(name: str, path: Path) -> None:
    download = DOWNLOADS[name]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_PATIENCE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(download.url, str(path), download.sha256, progress=False)
    except (URLError, OSError, RuntimeError) as problem:  # RuntimeError: another hash
        raise _missing(name, f"they are not at {path}, and could not be downloaded ({problem})") from None
    finally:
        socket.setdefaulttimeout(before)


def _missing(name: str, reason: str) -> Exception:
    download = DOWNLOADS[name]
    option = " or with --inception-weights FILE" if name == "inception" else ""
    return input_error(
        f"the weights of the {name} features are missing",
        reason=reason,
        file=download.url,
        sha256=download.sha256,
        hint=f"name a copy in {download.variable}{option}, or put it into torch's cache",
        or_else="go on without it: --set evaluation.extractor=auto",
    )


def load_extractor(name: str, weights_folder: Path | None = None, device: str = "cpu") -> Extractor:
    """The named extractor on a device, loaded once a process.

    `inception` and `dinov2` are found by `find_weights`; a small classifier lies in `weights_folder` (the package's own
    when None) as NAME.safetensors with its card NAME.json. Raises InputError where it is missing or not what its card
    says.
    """
    if name in DOWNLOADS:
        return _load_published(name, find_weights(name), device)
    folder = WEIGHTS if weights_folder is None or name in SHIPPED else Path(weights_folder)
    if not (folder / f"{name}.json").is_file():
        known = [*SHIPPED, *DOWNLOADS]
        hint = "for a data set of your own making: python -m pipelines.scoring.train_classifier NAME"
        if weights_folder:
            hint = f"mpdit data prepare and encode make one in {folder}, without --no-features"
        raise input_error(
            f"no feature extractor {name!r}",
            given=name,
            nearest=nearest(name, known),
            allowed=", ".join(known),
            hint=hint,
        )
    return _load_classifier(name, folder, device)


@cache
def _load_classifier(name: str, folder: Path, device: str) -> Extractor:
    path, card = folder / f"{name}.safetensors", extractor_card(name, folder)
    found = sha256(path)
    if found != card["sha256"]:
        given, allowed = f"sha256 {found}", f"sha256 {card['sha256']}"
        hint = "reinstall mpdit" if folder == WEIGHTS else "prepare the data again"
        raise input_error(f"{path} is damaged", given=given, allowed=allowed, hint=hint)
    channels, resolution = int(card["channels"]), int(card["resolution"])
    network = SmallClassifier(channels, resolution, int(card["classes"]))
    network.load_state_dict(load_file(path))
    network.eval().requires_grad_(False).to(device)
    accuracy, weights = card["held_out_accuracy"], f"sha256:{found}"
    if card.get("resizes"):
        return Extractor(name, Resized(network, resolution), weights, 64, channels, None, network.classify, accuracy)
    return Extractor(name, network, weights, 64, channels, resolution, network.classify, accuracy)


@cache
def _load_published(name: str, path: Path, device: str) -> Extractor:
    """Weights that are not the published ones get a name of their own: `fid_10k` is never measured with them."""
    found = sha256(path)
    makers = {"inception": _inception, "dinov2": _dinov2}
    try:
        network, dimensions, logits = makers[name](path)
    except Exception as problem:  # whatever is wrong with a file that a user named
        raise input_error(
            f"{path} does not hold the weights of the {name} features",
            reason=f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}",
            given=f"sha256 {found}",
            allowed=f"sha256 {DOWNLOADS[name].sha256}, {DOWNLOADS[name].url}",
        ) from None
    own = name if found == DOWNLOADS[name].sha256 else f"{name}-{found[:8]}"
    network.eval().requires_grad_(False).to(device)
    return Extractor(own, network, f"sha256:{found}", dimensions, logits=logits)


class _Inception(nn.Module):
    """torch-fidelity's Inception-v3: uint8 (batch, 3, height, width) → (batch, 2048), resized as in TensorFlow 1."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        torch.load(path, weights_only=True)  # theirs would run a pickle's code
        self.theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))

    def forward(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.theirs(images)[0])

    def logits(self, features: Tensor) -> Tensor:
        """Class logits without their bias, of which the Inception score is made: (count, 2048) → (count, 1008)."""
        return features.to(self.theirs.fc.weight) @ self.theirs.fc.weight.T


def _inception(path: Path) -> tuple[nn.Module, int, Callable[[Tensor], Tensor] | None]:
    network = _Inception(path)
    return network, 2048, network.logits


def _dinov2(path: Path) -> tuple[nn.Module, int, Callable[[Tensor], Tensor] | None]:
    from mpdit.scoring.dinov2 import read_dinov2

    network = read_dinov2(path)
    return network, network.width, None


def extractor_card(name: str, folder: Path | None = None) -> dict[str, Any]:
    """What is recorded about a small classifier: sha256, shape, held-out accuracy, how it was made; {} for others."""
    path = (WEIGHTS if folder is None or name in SHIPPED else folder) / f"{name}.json"
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return card


def register_with_torch_fidelity(name: str, weights_folder: Path | None = None) -> str:
    """Make an extractor usable as torch_fidelity's `feature_extractor=`; returns the name it has there."""
    from torch_fidelity import FeatureExtractorBase, register_feature_extractor
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    registered = f"mpdit-{name}"

    class Registered(FeatureExtractorBase):  # type: ignore[misc]
        def __init__(self, name_there: str, features_list: list[str], **_options: object) -> None:
            super().__init__(name_there, features_list)
            self.network = load_extractor(name, weights_folder).network

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> Tensor:
            raise NotImplementedError

        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (self.network(images),)

    if registered not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(registered, Registered)
    return registered
