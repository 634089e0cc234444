"""Samplers: from noise to images. One function each, one signature.

Each takes `denoise(x, sigma) -> Estimate`, a start x: (batch, channels, height, width) of standard deviation
sigmas[0], sigmas: (steps + 1,) descending to 0, and `fresh(i)`, the standard normal noise of x's shape that step i
may add; it returns the images. All but `ddpm` follow the probability-flow ODE and add none.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from mpdit.diffusion.objectives import Denoiser, Estimate, learned_log_variance, step_back

Denoise = Callable[[Tensor, float], Estimate]
Fresh = Callable[[int], Tensor]
Sampler = Callable[[Denoise, Tensor, Tensor, Fresh], Tensor]
Interval = tuple[float, float]


def ddpm(denoise: Denoise, x: Tensor, sigmas: Tensor, fresh: Fresh) -> Tensor:
    """DDPM's ancestral steps, respaced; Algorithm 2 of arXiv 2006.11239 and §4 of arXiv 2102.09672. NFE = steps.

    The variance is the network's where it has learned one, else the exact posterior's (the smaller bound).
    """
    for i, (now, then) in enumerate(itertools.pairwise(sigmas.double().tolist())):
        said = denoise(x, now)
        share, lower, upper = step_back(*torch.tensor([now, then], dtype=torch.float64))
        x = said.clean + float(share) * (x - said.clean)
        if then > 0:
            deviation: float | Tensor = float(lower.sqrt())
            if said.variance is not None:
                deviation = torch.exp(0.5 * learned_log_variance(said.variance, lower.to(x), upper.to(x)))
            x = x + deviation * fresh(i)
    return x


def ddim(denoise: Denoise, x: Tensor, sigmas: Tensor, fresh: Fresh) -> Tensor:
    """First-order steps; DDIM (arXiv 2010.02502), which for rectified flow is Euler's method in t. NFE = steps."""
    for now, then in itertools.pairwise(sigmas.double().tolist()):
        clean = denoise(x, now).clean
        x = clean + (then / now) * (x - clean)
    return x


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, fresh: Fresh) -> Tensor:
    """Second-order steps, the last one of first order. Algorithm 1 of arXiv 2206.00364. NFE = 2·steps − 1."""
    for now, then in itertools.pairwise(sigmas.double().tolist()):
        slope = (x - denoise(x, now).clean) / now
        ahead = x + (then - now) * slope
        if then > 0:
            slope = (slope + (ahead - denoise(ahead, then).clean) / then) / 2
            ahead = x + (then - now) * slope
        x = ahead
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, fresh: Fresh) -> Tensor:
    """DPM-Solver++(2M), Algorithm 2 of arXiv 2211.01095: second order at NFE = steps."""
    before: Tensor | None = None
    span_before = 0.0
    for now, then in itertools.pairwise(sigmas.double().tolist()):
        clean = denoise(x, now).clean
        span = math.log(now / then) if then > 0 else math.inf  # in log-SNR/2; the last step is of first order
        target = clean
        if before is not None and then > 0:
            target = clean + (clean - before) * (span / (2 * span_before))
        x = (then / now) * x + (1 - then / now) * target
        before, span_before = clean, span
    return x


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "heun": heun, "dpm++2m": dpmpp_2m}


def evaluations(sampler: str, sigmas: Tensor, guidance: float, interval: Interval | None = None) -> int:
    """NFE: how many times the network is evaluated for one image."""
    levels = sigmas[:-1].tolist()
    if sampler == "heun":
        levels += levels[1:]
    return sum(2 if _guides(level, guidance, interval) else 1 for level in levels)


def _guides(sigma: float, guidance: float, interval: Interval | None) -> bool:
    return guidance != 1 and (interval is None or interval[0] <= sigma <= interval[1])


def guided(denoiser: Denoiser, labels: Tensor, guidance: float, interval: Interval | None = None) -> Denoise:
    """Classifier-free guidance: D(x; ∅) + guidance·(D(x; c) − D(x; ∅)). Eq. 6 of arXiv 2207.12598.

    labels: (batch,) int64. A guidance scale of 1, or a σ outside the interval (arXiv 2404.07724), evaluates the
    conditional network alone. A learned variance is the conditional network's.
    """
    nobody = torch.full_like(labels, denoiser.no_class)

    def denoise(x: Tensor, sigma: float) -> Estimate:
        if not _guides(sigma, guidance, interval):
            return denoiser.estimate(x, x.new_full((1,), sigma), labels)
        both = denoiser.estimate(x.repeat(2, 1, 1, 1), x.new_full((1,), sigma), torch.cat([labels, nobody]))
        conditional, free = both.clean.chunk(2)
        variance = both.variance.chunk(2)[0] if both.variance is not None else None
        return Estimate(free + guidance * (conditional - free), variance, None)

    return denoise


@torch.inference_mode()
def sample(
    denoiser: Denoiser,
    noise: Tensor,
    labels: Tensor,
    sampler: str,
    steps: int,
    guidance: float,
    fresh: Fresh,
    interval: Interval | None = None,
) -> Tensor:
    """Images for unit noise: (batch, channels, height, width) → the same shape, about −1 … 1."""
    sigmas = denoiser.objective.noise_schedule(steps)
    return SAMPLERS[sampler](guided(denoiser, labels, guidance, interval), noise * sigmas[0], sigmas, fresh)
