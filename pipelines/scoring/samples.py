"""Draw samples on fixed noise and balanced labels, batch by batch, and keep what is done across a stop."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mpdit.data.dataset import to_bytes
from mpdit.diffusion.denoiser import Denoiser
from mpdit.diffusion.sampling import sample
from mpdit.errors import disk_is_full, no_space
from mpdit.inference.ahead_of_time import compile_ahead_of_time
from mpdit.inference.folding import fold, refold
from mpdit.randomness import normal
from pipelines.scoring.cell import Evaluation
from pipelines.scoring.reference import cache_folder

SAMPLE_BATCH = 250  # samples drawn at a time; part of what a number means, so not a setting
KEEP_EVERY = 20.0  # seconds between two writes of what is drawn

Progress = Callable[[int], None]  # is told how many samples were drawn since it was last told
ToPixels = Callable[[Tensor], Tensor]

log = logging.getLogger(__name__)


def draw_noise(first: int, count: int, shape: torch.Size, seed: int, purpose: str = "sample noise") -> Tensor:
    """Noise of the samples first … first + count − 1, the same however they are batched: (count, *shape)."""
    return torch.cat([normal((1, *shape), seed, index, purpose) for index in range(first, first + count)])


def balanced_labels(first: int, count: int, classes: int) -> Tensor:
    """Classes in turn, so that every class is asked for equally often: (count,) int64."""
    return torch.arange(first, first + count) % classes


def same(values: Tensor) -> Tensor:
    """Samples that are pixels already."""
    return values


class Drawer:
    """A denoiser made ready to be sampled: folded once, on its device, and compiled where that is asked for."""

    def __init__(self, denoiser: Denoiser, to_pixels: ToPixels = same, compiled: bool = False) -> None:
        self.architecture = denoiser.network.architecture
        self.device = next(denoiser.parameters()).device
        self.denoiser = fold(denoiser)
        self.to_pixels = to_pixels
        self.weights = fingerprint(denoiser)
        self.paces: list[float] = []  # seconds a sample, of each batch drawn
        if compiled:
            self._compile()

    def take(self, denoiser: Denoiser) -> None:
        """Draw from other weights of the same network from now on; what is compiled stays so."""
        refold(self.denoiser, denoiser)
        self.weights = fingerprint(denoiser)

    @torch.inference_mode()
    def _compile(self) -> None:
        a = self.architecture
        one = torch.zeros(1, a.channels, a.resolution, a.resolution, device=self.device)
        self.denoiser(one, one.new_ones(1), one.new_zeros(1, dtype=torch.int64))  # settles the folded scales
        network = self.denoiser.network
        if self.device.type == "cpu":
            compile_ahead_of_time(network, cache_folder() / "compiled")
            return
        torch.compiler.reset()  # graphs of another model that this process has sampled
        for block in network.blocks:  # one graph for all of them
            block.compile(dynamic=False)

    def draw(self, evaluation: Evaluation, first: int, labels: Tensor) -> Tensor:
        """The samples first … first + len(labels) − 1 of these classes: uint8 (count, channels, height, width).

        Raises FloatingPointError for samples that are not finite.
        """
        started = time.monotonic()
        a, count = self.architecture, len(labels)
        shape = torch.Size((a.channels, a.resolution, a.resolution))

        def noise_sampler(step: int) -> Tensor:
            return draw_noise(first, count, shape, evaluation.seed, f"sampler noise {step}").to(self.device)

        noise = draw_noise(first, count, shape, evaluation.seed).to(self.device)
        half = evaluation.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext():
            images = sample(self.denoiser, noise, labels.to(self.device), evaluation.sampling, noise_sampler)
        if not images.isfinite().all():
            raise FloatingPointError("the samples are not finite")
        drawn = to_bytes(self.to_pixels(images.float()))
        self.paces.append((time.monotonic() - started) / count)
        return drawn

    def batch(self, evaluation: Evaluation, first: int, count: int) -> Tensor:
        """The evaluation's samples first … first + count − 1: uint8 (count, channels, height, width), on the device."""
        return self.draw(evaluation, first, balanced_labels(first, count, max(1, self.architecture.classes)))


@dataclass(frozen=True)
class Drawers:
    """The processes that draw one cell's samples together, a batch each at a time; every one of them calls alike."""

    rank: int = 0
    count: int = 1

    def gathered(self, mine: Tensor, lengths: list[int]) -> list[Tensor]:
        """Every process's rows in order of rank. mine: (lengths[rank], dimensions)."""
        if self.count == 1:
            return [mine]
        padded = mine.new_zeros(max(lengths), mine.shape[1])
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        torch.distributed.all_gather(parts, padded)
        return [part[:length] for part, length in zip(parts, lengths, strict=True)]


def all_drawers() -> Drawers:
    """The processes that this one was started with."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return Drawers()
    return Drawers(torch.distributed.get_rank(), torch.distributed.get_world_size())


def fingerprint(module: nn.Module) -> str:
    """A hash of a network's weights."""
    digest = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        digest.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


class Kept:
    """What has been drawn so far, in one file found by a hash of all that it depends on; rows (count, …) of any type.

    A file that is damaged, or that cannot be read, counts as none. A full disk is told as one. Of several processes
    that keep the same rows, one is `writing`.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], writing: bool = True) -> None:
        self.writing = writing
        self.facts = json.dumps(facts, sort_keys=True)
        self.path = folder / f"{hashlib.sha256(self.facts.encode()).hexdigest()[:16]}.safetensors"
        self.parts = self._read()
        self.written = time.monotonic()

    @property
    def count(self) -> int:
        """How many rows there are."""
        return sum(len(part) for part in self.parts)

    def rows(self, count: int) -> Tensor:
        """The first `count` rows, on the CPU."""
        return torch.cat(self.parts)[:count]

    def add(self, rows: Tensor) -> None:
        """Take more rows in; they are on disk within KEEP_EVERY seconds of drawing."""
        self.parts.append(rows.cpu())
        if time.monotonic() - self.written >= KEEP_EVERY:
            self.write()

    def write(self) -> None:
        """Bring all rows to disk, whole or not at all. Raises InputError when the disk is full."""
        if not self.parts or not self.writing:
            return
        partial = self.path.with_suffix(".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"rows": torch.cat(self.parts)}, partial, metadata={"facts": self.facts})
            partial.replace(self.path)
        except (OSError, SafetensorError) as problem:
            partial.unlink(missing_ok=True)
            if disk_is_full(problem):
                raise no_space(self.path.parent) from None
            log.warning("what is drawn cannot be kept in %s: %s", self.path.parent, problem)
        self.written = time.monotonic()

    @contextmanager
    def whatever_happens(self, keep: bool = True) -> Iterator[None]:
        """Write what is drawn when the user stops it here; when it ends by itself, only to `keep` it."""
        try:
            yield
        except KeyboardInterrupt:
            self.write()
            raise
        if keep:
            self.write()

    def remove(self) -> None:
        """Forget the file, and its folder when nothing else is in it."""
        if not self.writing:
            return
        self.path.unlink(missing_ok=True)
        if self.path.parent.is_dir() and not any(self.path.parent.iterdir()):
            self.path.parent.rmdir()

    def _read(self) -> list[Tensor]:
        if not self.path.exists():
            return []
        try:
            with safe_open(self.path, framework="pt") as file:
                if file.metadata()["facts"] != self.facts:
                    raise ValueError("it is of other samples")
                return [file.get_tensor("rows")]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as problem:
            log.warning("%s is not used: %s", self.path, problem)
            return []


def sample_grid(
    drawer: Drawer,
    evaluation: Evaluation,
    classes: list[int],
    rows: int,
    kept: Kept,
    progress: Progress | None = None,
) -> Tensor:
    """Samples for a picture, a column a class: uint8 (rows·classes, channels, height, width), on the CPU.

    What `kept` holds is not drawn again.
    """
    labels = torch.tensor(classes).repeat(rows)
    if progress and kept.count:
        progress(kept.count)
    with kept.whatever_happens(keep=False):
        while (first := kept.count) < len(labels):
            count = min(SAMPLE_BATCH, len(labels) - first)
            kept.add(drawer.draw(evaluation, first, labels[first : first + count]))
            if progress:
                progress(count)
    return kept.rows(len(labels))
