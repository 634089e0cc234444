"""DDPM's step back between two noise levels, and the bound that its learned variance is trained by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mpdit.lazy_modules import lazy_module
from mpdit.schedules import ddpm_sigmas

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


def step_back(sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean_coef, lower and upper variance of DDPM's step from σ to a lower level, in x = clean + σ·noise.

    The mean is clean + mean_coef·(x − clean), mean_coef = σ_next²/σ². The variance lies between that of the exact
    posterior, which knows the clean image, and that of the noising step. Eq. 7 of arXiv 2006.11239, divided by ᾱ of
    the lower level.
    """
    mean_coef = (sigma_next / sigma) ** 2
    gap = sigma**2 - sigma_next**2
    return mean_coef, mean_coef * gap, gap * (1 + sigma_next**2) / (1 + sigma**2)


def learned_log_variance(variance: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return ln of the variance, at −1 … 1 between the two bounds. Eq. 15 of arXiv 2102.09672."""
    fraction = (variance + 1) / 2
    return fraction * upper.log() + (1 - fraction) * lower.log()


def variational_bound(
    images: Tensor, denoised: Tensor, variance: Tensor, sigma: Tensor, *, is_8_bit: bool = True
) -> Tensor:
    """Return DDPM's term of the variational bound for one step, in bits per dimension: (batch,).

    KL(q(x_next|x, clean image) ‖ p(x_next|x)); for the last step the negative log-likelihood of the image's 8-bit
    values in −1 … 1. Latents have no such bins: without `is_8_bit` the last step is a KL too, of the variance that
    stands in for its own lower bound of 0. Only `variance` is to learn from it. Eq. 4 of arXiv 2102.09672.
    """
    table = ddpm_sigmas().to(sigma)
    index = torch.searchsorted(table, sigma - 1e-3 * sigma)
    sigma_next = torch.cat([table.new_zeros(1), table])[index].reshape(-1, 1, 1, 1)
    is_last = index.reshape(-1, 1, 1, 1) == 0
    mean_coef, lower, upper = step_back(sigma.reshape(-1, 1, 1, 1), sigma_next)
    _, second_lower, _ = step_back(table[1], table[0])  # the last step's own lower bound is 0: the one before stands in
    lower = torch.where(is_last, second_lower / (1 + table[0] ** 2), lower)
    log_variance = learned_log_variance(variance, lower, upper)
    error = (1 - mean_coef) * (images - denoised)
    divergence = 0.5 * (log_variance - lower.log() + (lower + error**2) * torch.exp(-log_variance) - 1)
    nats = divergence
    if is_8_bit:
        nats = torch.where(is_last, _discretized_nll(images, denoised, 0.5 * log_variance), divergence)
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


def _discretized_nll(images: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Return −ln of a Gaussian's mass on the 8-bit bin around each value; the outer bins reach to infinity."""
    inverse = torch.exp(-log_scale)
    above = torch.special.ndtr((images - mean + 1 / 255) * inverse)
    below = torch.special.ndtr((images - mean - 1 / 255) * inverse)
    above = torch.where(images > 0.999, 1.0, above)
    below = torch.where(images < -0.999, 0.0, below)
    return -(above - below).clamp_min(1e-12).log()
