"""Draw samples from a denoiser, on fixed noise and balanced labels."""

import hashlib
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpdit.data.dataset import to_bytes
from mpdit.diffusion.denoiser import Denoiser
from mpdit.diffusion.sampling import sample
from mpdit.inference.ahead_of_time import compile_ahead_of_time
from mpdit.inference.folding import fold, refold
from mpdit.randomness import normal
from pipelines.known_facts import cache_folder
from pipelines.scoring.cell import SAMPLE_BATCH, Evaluation
from pipelines.scoring.feature_cache import FeatureCache

Progress = Callable[[int], None]  # called with the number of samples drawn since its last call
ToPixels = Callable[[Tensor], Tensor]


def draw_noise(first: int, count: int, shape: torch.Size, seed: int, purpose: str = "sample noise") -> Tensor:
    """Draw the noise of the samples first … first + count − 1: (count, *shape), the same however they are batched."""
    return torch.cat([normal((1, *shape), seed, index, purpose) for index in range(first, first + count)])


def balanced_labels(first: int, count: int, classes: int) -> Tensor:
    """Return the classes in turn, so that each appears equally often: (count,) int64."""
    return torch.arange(first, first + count) % classes


def identity(values: Tensor) -> Tensor:
    """Return samples that are pixels already."""
    return values


class SampleGenerator:
    """Draws samples from a denoiser, which it folds once and, where that is asked for, compiles.

    to_pixels: decodes what the denoiser gives, as latents.
    """

    def __init__(self, denoiser: Denoiser, to_pixels: ToPixels = identity, compiled: bool = False) -> None:
        self.architecture = denoiser.network.architecture
        self.device = next(denoiser.parameters()).device
        self.denoiser = fold(denoiser)
        self.to_pixels, self.compiled = to_pixels, compiled
        self.weights = fingerprint(denoiser)
        self.seconds_per_sample: list[float] = []  # of each batch drawn
        if compiled:
            self._compile()

    def load(self, denoiser: Denoiser) -> None:
        """Take over the weights of a denoiser of the same architecture; compiled code stays valid."""
        refold(self.denoiser, denoiser)
        self.weights = fingerprint(denoiser)

    @torch.inference_mode()
    def _compile(self) -> None:
        a = self.architecture
        one = torch.zeros(1, a.channels, a.resolution, a.resolution, device=self.device)
        self.denoiser(one, one.new_ones(1), one.new_zeros(1, dtype=torch.int64))  # sets the folded scales
        network = self.denoiser.network
        if self.device.type == "cpu":
            compile_ahead_of_time(network, cache_folder() / "compiled")
            return
        torch.compiler.reset()  # graphs of another model that this process has sampled
        for block in network.blocks:  # one graph for all of them
            block.compile(dynamic=False)

    def draw(self, evaluation: Evaluation, first: int, labels: Tensor) -> Tensor:
        """Draw the samples first … first + len(labels) − 1 of these classes: uint8 (count, channels, height, width).

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
        pixels = to_bytes(self.to_pixels(images.float()))
        self.seconds_per_sample.append((time.monotonic() - started) / count)
        return pixels

    def batch(self, evaluation: Evaluation, first: int, count: int) -> Tensor:
        """Draw the samples first … first + count − 1 of an evaluation: uint8 (count, channels, height, width)."""
        return self.draw(evaluation, first, balanced_labels(first, count, max(1, self.architecture.classes)))


def fingerprint(module: nn.Module) -> str:
    """A hash of a network's weights."""
    digest = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        digest.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class SampleGrid:
    """What a grid of samples shows: a column for each class, `rows` samples in it."""

    evaluation: Evaluation
    classes: list[int]
    rows: int

    def draw(self, generator: SampleGenerator, cache: FeatureCache, progress: Progress | None = None) -> Tensor:
        """Draw the samples that the cache does not have: uint8 (rows·classes, channels, height, width), on the CPU."""
        labels = torch.tensor(self.classes).repeat(self.rows)
        if progress and cache.count:
            progress(cache.count)
        with cache.written_on_interrupt():
            while (first := cache.count) < len(labels):
                count = min(SAMPLE_BATCH, len(labels) - first)
                cache.add(generator.draw(self.evaluation, first, labels[first : first + count]))
                if progress:
                    progress(count)
        return cache.rows(len(labels))
