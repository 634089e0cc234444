"""Sampling: guidance around a denoiser, and the sampler's steps."""

import torch
from torch import Tensor

from mpdit.diffusion.denoiser import Denoiser, Estimate
from mpdit.diffusion.guidance_rules.registry import Predictions
from mpdit.diffusion.samplers.registry import Denoise, NoiseSampler
from mpdit.diffusion.sampling_options import Guidance, SamplingOptions


def guided(denoiser: Denoiser, labels: Tensor, guidance: Guidance, guide: Denoiser | None = None) -> Denoise:
    """Return the denoiser that the guidance's rule makes of two predictions: see guidance_rules/.

    Where the guidance does not act, the denoiser alone is evaluated. A learned variance is the denoiser's.

    Args:
        denoiser: D(x; c).
        labels: (batch,) int64.
        guidance: its scale, interval and rule, and the label that the second prediction is asked with.
        guide: the network of the second prediction; None: the denoiser itself.
    """
    guide_labels = torch.full_like(labels, denoiser.no_class) if guidance.empty_label else labels

    def denoise(x: Tensor, sigma: float, step: float | None = None) -> Estimate:
        step, level = sigma if step is None else step, x.new_full((1,), sigma)
        if not guidance.acts_at(step):
            return denoiser.estimate(x, level, labels)
        if guide is None:
            both = denoiser.estimate(x.repeat(2, 1, 1, 1), level, torch.cat([labels, guide_labels]))
            conditional, unconditional = both.denoised.chunk(2)
            variance = both.variance.chunk(2)[0] if both.variance is not None else None
        else:
            conditional, variance, _ = denoiser.estimate(x, level, labels)
            unconditional = guide.estimate(x, level, guide_labels).denoised
        predictions = Predictions(conditional, unconditional, x, sigma, step)
        return Estimate(guidance.rule.combine(predictions, guidance.scale), variance, None)

    return denoise


@torch.inference_mode()
def sample(  # noqa: PLR0913  (the guide is named)
    denoiser: Denoiser,
    noise: Tensor,
    labels: Tensor,
    options: SamplingOptions,
    noise_sampler: NoiseSampler,
    *,
    guide: Denoiser | None = None,
) -> Tensor:
    """Draw images from noise.

    Args:
        denoiser: the network that is sampled.
        noise: standard normal, (batch, channels, height, width).
        labels: (batch,) int64 classes.
        options: the sampler, its steps and the guidance.
        noise_sampler: `noise_sampler(i)` gives the noise that step i may add.
        guide: the network that guides; None: the denoiser itself.

    Returns:
        Training values of noise's shape; pixels lie about −1 … 1.
    """
    sigmas = torch.tensor(options.levels(lambda steps: denoiser.objective.noise_schedule(steps).tolist()))
    denoise = guided(denoiser, labels, options.guidance, guide)
    return options.sampler.draw(denoise, noise * sigmas[0], sigmas, noise_sampler)
