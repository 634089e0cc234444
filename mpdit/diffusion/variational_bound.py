"""DDPM's step back between two noise levels, and the bound that its learned variance is trained by."""

import math

import torch
from torch import Tensor

from mpdit.schedules import ddpm_sigmas


def step_back(sigma: Tensor, then: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """DDPM's step from level σ to a lower one, in x = clean + σ·noise: (share of x, lower and upper variance).

    The mean is clean + share·(x − clean), share = σ'²/σ². The variance lies between that of the exact posterior,
    which knows the clean image, and that of the noising step. Eq. 7 of arXiv 2006.11239, divided by ᾱ'.
    """
    share = (then / sigma) ** 2
    span = sigma**2 - then**2
    return share, share * span, span * (1 + then**2) / (1 + sigma**2)


def learned_log_variance(variance: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """ln of the variance at the place −1 … 1 between the two bounds. Eq. 15 of arXiv 2102.09672."""
    fraction = (variance + 1) / 2
    return fraction * upper.log() + (1 - fraction) * lower.log()


def variational_bound(images: Tensor, noisy: Tensor, clean: Tensor, variance: Tensor, sigma: Tensor) -> Tensor:
    """DDPM's term of the variational bound for one step, in bits per dimension: (batch,).

    KL(q(x'|x, clean image) ‖ p(x'|x)); for the last step the negative log-likelihood of the image's 8-bit values in
    −1 … 1. Only `variance` is to learn from it. Eq. 4 of arXiv 2102.09672.
    """
    table = ddpm_sigmas().to(sigma)
    index = torch.searchsorted(table, sigma - 1e-3 * sigma)
    below = torch.cat([table.new_zeros(1), table])[index].reshape(-1, 1, 1, 1)
    first = index.reshape(-1, 1, 1, 1) == 0
    share, lower, upper = step_back(sigma.reshape(-1, 1, 1, 1), below)
    _, second_lower, _ = step_back(table[1], table[0])  # the last step's own lower bound is 0: the one before stands in
    lower = torch.where(first, second_lower / (1 + table[0] ** 2), lower)
    guess = learned_log_variance(variance, lower, upper)
    gap = (1 - share) * (images - clean)
    divergence = 0.5 * (guess - lower.log() + (lower + gap**2) * torch.exp(-guess) - 1)
    nats = torch.where(first, _discretized_surprise(images, clean, 0.5 * guess), divergence)
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


def _discretized_surprise(images: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """−ln of a Gaussian's mass on the 8-bit bin around each value; the outer bins reach to infinity."""
    inverse = torch.exp(-log_scale)
    above = torch.special.ndtr((images - mean + 1 / 255) * inverse)
    below = torch.special.ndtr((images - mean - 1 / 255) * inverse)
    above = torch.where(images > 0.999, 1.0, above)
    below = torch.where(images < -0.999, 0.0, below)
    return -(above - below).clamp_min(1e-12).log()
