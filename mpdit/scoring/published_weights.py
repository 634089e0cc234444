"""Weights of feature extractors that others publish: where they are, and what they must hash to."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor, nn

from mpdit.errors import InputError, input_error
from mpdit.scoring.extractor import Extractor
from mpdit.scoring.small_classifier import sha256

DOWNLOAD_TIMEOUT = 20  # seconds without a byte


@dataclass(frozen=True)
class PublishedWeights:
    """Published weights of one extractor.

    Attributes:
        name: the extractor's.
        url: of the file.
        sha256: of the file's content.
        variable: the environment variable that may name a copy of the file.
        option: the command-line option that may name one too.
    """

    name: str
    url: str
    sha256: str
    variable: str
    option: str | None = None

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.url.rsplit("/", 1)[1]


class FeatureNetwork(NamedTuple):
    """A network of features, the dimensions of a feature vector, and what makes class logits of one, if it can.

    statistics: see `Extractor`.
    """

    network: nn.Module
    dimensions: int
    logits: Callable[[Tensor], Tensor] | None = None
    statistics: tuple[str, str] = ("mu", "sigma")


def weights_file(published: PublishedWeights) -> Path:
    """Return where the weights lie or would lie: what the variable names, or a file in torch's cache."""
    given = os.environ.get(published.variable)
    return Path(given) if given else Path(torch.hub.get_dir()) / "checkpoints" / published.file


def find_weights(published: PublishedWeights) -> Path:
    """Find the file of the weights: named by the variable, in torch's cache, or downloaded into it.

    Called before a sweep trains anything.

    Raises:
        InputError: there is none; the message says where to get it.
    """
    path = weights_file(published)
    if path.is_file():
        return path
    if os.environ.get(published.variable):
        raise _missing(published, f"{published.variable} names {path}, where there is no file")
    _download(published, path)
    return path


def _download(published: PublishedWeights, path: Path) -> None:
    timeout_before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(published.url, str(path), published.sha256, progress=False)
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: another hash
        raise _missing(published, f"they are not at {path}, and could not be downloaded ({error})") from None
    finally:
        socket.setdefaulttimeout(timeout_before)


def _missing(published: PublishedWeights, reason: str) -> InputError:
    option = f" or with {published.option}" if published.option else ""
    return input_error(
        f"the weights of the {published.name} features are missing",
        reason=reason,
        file=published.url,
        sha256=published.sha256,
        hint=f"name a copy in {published.variable}{option}, or put it into torch's cache",
        or_else="go on without it: --set evaluation.extractor=auto",
    )


def load_published(
    published: PublishedWeights, build: Callable[[Path], FeatureNetwork], device: str, name: str | None = None
) -> Extractor:
    """Load an extractor from its published weights, once a process.

    Weights that are not the published ones give the extractor a name of its own: `fid_10k` is never measured with
    them.

    Args:
        published: the weights.
        build: makes the network of the file.
        device: where the network runs.
        name: of the extractor; that of the weights by default.

    Raises:
        InputError: the file is missing, or does not hold such weights.
    """
    return _load(published, build, find_weights(published), device, name or published.name)


@cache
def _load(
    published: PublishedWeights, build: Callable[[Path], FeatureNetwork], path: Path, device: str, name: str
) -> Extractor:
    stored = sha256(path)
    try:
        built = build(path)
    except Exception as error:  # whatever is wrong with a file that a user named
        raise input_error(
            f"{path} does not hold the weights of the {published.name} features",
            reason=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            given=f"sha256 {stored}",
            allowed=f"sha256 {published.sha256}, {published.url}",
        ) from None
    name = name if stored == published.sha256 else f"{name}-{stored[:8]}"
    network = built.network.eval().requires_grad_(False).to(device)
    hash_ = f"sha256:{stored}"
    return Extractor(name, network, hash_, built.dimensions, logits=built.logits, statistics=built.statistics)
