"""Sampling: guidance around a denoiser, and the sampler's steps."""

import torch
from torch import Tensor

from mpdit.diffusion.denoiser import Denoiser, Estimate
from mpdit.diffusion.samplers.registry import Denoise, NoiseSampler
from mpdit.diffusion.sampling_options import Guidance, SamplingOptions


def guided(denoiser: Denoiser, labels: Tensor, guidance: Guidance) -> Denoise:
    """Return the denoiser that the guidance's rule makes of D(x; c) and D(x; ∅): see guidance_rules/.

    labels: (batch,) int64. Where the guidance does not act, the conditional network alone is evaluated. A learned
    variance is the conditional network's.
    """
    null_labels = torch.full_like(labels, denoiser.no_class)

    def denoise(x: Tensor, sigma: float) -> Estimate:
        if not guidance.acts_at(sigma):
            return denoiser.estimate(x, x.new_full((1,), sigma), labels)
        both = denoiser.estimate(x.repeat(2, 1, 1, 1), x.new_full((1,), sigma), torch.cat([labels, null_labels]))
        conditional, unconditional = both.denoised.chunk(2)
        variance = both.variance.chunk(2)[0] if both.variance is not None else None
        return Estimate(guidance.rule.combine(conditional, unconditional, guidance.scale), variance, None)

    return denoise


@torch.inference_mode()
def sample(
    denoiser: Denoiser, noise: Tensor, labels: Tensor, options: SamplingOptions, noise_sampler: NoiseSampler
) -> Tensor:
    """Draw images from noise.

    Args:
        denoiser: the network that is sampled.
        noise: standard normal, (batch, channels, height, width).
        labels: (batch,) int64 classes.
        options: the sampler, its steps and the guidance.
        noise_sampler: `noise_sampler(i)` gives the noise that step i may add.

    Returns:
        Training values of noise's shape; pixels lie about −1 … 1.
    """
    sigmas = denoiser.objective.noise_schedule(options.steps)
    denoise = guided(denoiser, labels, options.guidance)
    return options.sampler.draw(denoise, noise * sigmas[0], sigmas, noise_sampler)
