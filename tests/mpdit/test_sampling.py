import pytest
import torch
from torch import Tensor

from mpdit.diffusion import Denoiser
from mpdit.randomness import normal
from mpdit.sampling import SAMPLERS, evaluations, guided, noise_schedule, sample

STD = 0.6


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of data drawn from N(0, STD²)."""
    return x * STD**2 / (STD**2 + sigma**2)


def exact(x: Tensor, sigma: float) -> Tensor:
    """Where the exact flow from `sigma` to 0 takes x: it keeps x / √(STD² + σ²)."""
    return x * STD / (STD**2 + sigma**2) ** 0.5


def error(sampler: str, steps: int) -> float:
    sigmas = noise_schedule(steps).double()
    x = normal((64, 1, 2, 2), 0, 0, "x").double() * sigmas[0]
    wanted = exact(x, float(sigmas[0]))
    return float((SAMPLERS[sampler](gaussian, x, sigmas) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("heun", 2), ("dpm++2m", 2)])
def test_a_sampler_reaches_the_exact_solution_at_its_order(sampler: str, order: int) -> None:
    coarse, fine = error(sampler, 40), error(sampler, 160)
    assert fine < 0.02
    assert coarse / fine > 0.6 * 4**order


def test_the_schedule_goes_down_to_zero() -> None:
    sigmas = noise_schedule(10)
    assert sigmas[0] == 80
    assert sigmas[-2] == pytest.approx(0.002)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert noise_schedule(1).tolist() == [80, 0]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_nfe_is_what_is_really_evaluated(sampler: str, guidance: float, small_denoiser: Denoiser) -> None:
    rows = []
    small_denoiser.register_forward_hook(lambda _m, inputs, _o: rows.append(len(inputs[0])))
    sample(small_denoiser, torch.zeros(3, 1, 8, 8), torch.arange(3), sampler, 5, guidance)
    assert sum(rows) / 3 == evaluations(sampler, 5, guidance)


def test_guidance_moves_along_the_difference(small_denoiser: Denoiser) -> None:
    torch.nn.init.constant_(small_denoiser.network.final.gain, 1.0)
    for block in small_denoiser.network.blocks:
        torch.nn.init.constant_(block.mlp.conditioner.gains["scale"], 1.0)
    x, sigma, labels = normal((3, 1, 8, 8), 0, 0, "x"), torch.tensor(1.0), torch.arange(3)
    free = guided(small_denoiser, torch.full((3,), small_denoiser.no_class), 1)(x, sigma)
    conditional = guided(small_denoiser, labels, 1)(x, sigma)
    assert (conditional - free).abs().max() > 1e-4
    strong = guided(small_denoiser, labels, 3)(x, sigma)
    torch.testing.assert_close(strong, free + 3 * (conditional - free), rtol=1e-4, atol=1e-5)
