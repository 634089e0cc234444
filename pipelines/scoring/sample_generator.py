"""Draw samples from a denoiser, on fixed noise and balanced labels; put them into folds."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from mpdit.data.dataset import Dataset, to_bytes
from mpdit.diffusion.denoiser import Denoiser
from mpdit.diffusion.sampling import sample
from mpdit.inference.ahead_of_time import compile_ahead_of_time
from mpdit.inference.block_influence import without_blocks
from mpdit.inference.folding import fold, refold
from mpdit.inference.rounding import round_blocks
from mpdit.inference.weight_formats.fp32 import Fp32
from mpdit.inference.weight_formats.registry import WeightFormat
from mpdit.randomness import normal
from mpdit.scoring.class_balance import folds_by_class, label_sequence
from mpdit.scoring.frechet import Statistics, folds_of
from pipelines.known_facts import cache_folder
from pipelines.scoring.cell import SAMPLE_BATCH, Evaluation
from pipelines.scoring.feature_cache import FeatureCache

Progress = Callable[[int], None]  # called with the number of samples drawn since its last call
FP32 = Fp32()
ToPixels = Callable[[Tensor], Tensor]


def draw_noise(first: int, count: int, shape: torch.Size, seed: int, purpose: str = "sample noise") -> Tensor:
    """Draw the noise of the samples first … first + count − 1: (count, *shape), the same however they are batched."""
    return torch.cat([normal((1, *shape), seed, index, purpose) for index in range(first, first + count)])


def sample_labels(dataset: Dataset, evaluation: Evaluation, first: int, count: int) -> Tensor:
    """Return the classes that the samples first … first + count − 1 of an evaluation are asked for: (count,) int64."""
    if evaluation.classes == "in_turn":
        return torch.arange(first, first + count) % max(1, dataset.classes)
    size = 1 << max(12, (first + count - 1).bit_length())  # so that few sequences are made
    return _labels(dataset, evaluation.classes, evaluation.seed, size)[first : first + count]


@lru_cache(maxsize=4)
def _labels(dataset: Dataset, mode: str, seed: int, size: int) -> Tensor:
    classes = max(1, dataset.classes)
    even = mode == "balanced" or not dataset.classes
    weights = torch.ones(classes) if even else dataset.labels.cpu().bincount(minlength=classes)
    return label_sequence(weights, size, seed)


def sample_folds(features: Tensor, dataset: Dataset, evaluation: Evaluation, class_means: Tensor) -> list[Statistics]:
    """Return the statistics of each fold of an evaluation's samples.

    Args:
        features: of all samples, (count, dimensions).
        class_means: of the real images: (classes, dimensions).
    """
    if evaluation.classes == "in_turn":
        return folds_of(features)
    return folds_by_class(features, sample_labels(dataset, evaluation, 0, len(features)), class_means)


def identity(values: Tensor) -> Tensor:
    """Return samples that are pixels already."""
    return values


class SampleGenerator:
    """Draws samples from a denoiser and its guide, which it folds once and, where that is asked for, compiles.

    to_pixels: decodes what the denoiser gives, as latents. `left_out`: the numbers of the blocks that are not run.
    """

    def __init__(self, denoiser: Denoiser, to_pixels: ToPixels = identity, compiled: bool = False) -> None:
        self.architecture = denoiser.network.architecture
        self.device = next(denoiser.parameters()).device
        self.to_pixels, self.compiled = to_pixels, compiled
        if compiled and self.device.type != "cpu":
            torch.compiler.reset()  # graphs of another model that this process has sampled
        self.denoiser = self._prepared(fold(denoiser))
        self.weights = fingerprint(denoiser)
        self.left_out: list[int] = []
        self._of: tuple[Denoiser, WeightFormat] = (denoiser, FP32)
        self.guide: Denoiser | None = None
        self.guide_weights: str | None = None
        self._loaded_guide: Denoiser | None = None  # also where it does not guide now: compiled code stays valid
        self.seconds_per_sample: list[float] = []  # of each batch drawn

    def load(self, denoiser: Denoiser, weight_format: WeightFormat = FP32) -> None:
        """Take over the weights of a denoiser of the same architecture; compiled code stays valid."""
        if self._of[0] is denoiser and self._of[1] == weight_format:
            return
        refold(self.denoiser, _rounded(denoiser, weight_format))
        self.weights, self._of = fingerprint(denoiser), (denoiser, weight_format)

    def load_guide(self, guide: Denoiser | None, weight_format: WeightFormat = FP32) -> None:
        """Take over the weights of the denoiser that guides from now on; None: the denoiser guides itself."""
        self.guide = self.guide_weights = None
        if guide is None:
            return
        folded = _rounded(guide, weight_format)
        if self._loaded_guide is None:
            self._loaded_guide = self._prepared(folded)
        else:
            refold(self._loaded_guide, folded)
        self.guide, self.guide_weights = self._loaded_guide, fingerprint(guide)

    def _prepared(self, folded: Denoiser) -> Denoiser:
        """Bring a folded denoiser to the device, and compile its blocks where that is asked for."""
        folded.to(self.device)
        if self.compiled:
            self._compile(folded)
        return folded

    @torch.inference_mode()
    def _compile(self, folded: Denoiser) -> None:
        a = self.architecture
        one = torch.zeros(1, a.channels, a.resolution, a.resolution, device=self.device)
        folded(one, one.new_ones(1), one.new_zeros(1, dtype=torch.int64))  # sets the folded scales
        if self.device.type == "cpu":
            compile_ahead_of_time(folded.network, cache_folder() / "compiled")
        else:
            for block in folded.network.blocks:  # one graph for all of them
                block.compile(dynamic=False)

    def draw(self, evaluation: Evaluation, first: int, labels: Tensor) -> Tensor:
        """Draw the samples first … first + len(labels) − 1 of these classes: uint8 (count, channels, height, width).

        Raises FloatingPointError for samples that are not finite, ValueError where other networks are loaded.
        """
        if (evaluation.has_guide and self.guide is None) or evaluation.weights != self._of[1]:
            raise ValueError("the networks that are loaded are not this evaluation's")
        started = time.monotonic()
        a, count = self.architecture, len(labels)
        shape = torch.Size((a.channels, a.resolution, a.resolution))

        def noise_sampler(step: int) -> Tensor:
            return draw_noise(first, count, shape, evaluation.seed, f"sampler noise {step}").to(self.device)

        noise = draw_noise(first, count, shape, evaluation.seed).to(self.device)
        half = evaluation.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext(), self.without_left_out():
            images = sample(
                self.denoiser, noise, labels.to(self.device), evaluation.sampling, noise_sampler, guide=self.guide
            )
        if not images.isfinite().all():
            raise FloatingPointError("the samples are not finite")
        pixels = to_bytes(self.to_pixels(images.float()))
        self.seconds_per_sample.append((time.monotonic() - started) / count)
        return pixels

    @contextmanager
    def without_left_out(self) -> Iterator[None]:
        """While open, the networks are run without the blocks that are left out."""
        with ExitStack() as left_out:
            for folded in filter(None, (self.denoiser, self.guide)):
                left_out.enter_context(without_blocks(folded.network, self.left_out))
            yield


def _rounded(denoiser: Denoiser, weight_format: WeightFormat) -> Denoiser:
    """A folded copy of a denoiser, with the weights of its blocks in a format."""
    folded = fold(denoiser)
    round_blocks(folded, weight_format)
    return folded


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
