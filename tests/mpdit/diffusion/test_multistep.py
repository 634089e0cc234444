"""Multistep and stochastic samplers: against the exact solution of Gaussian data, at their order, on uneven grids."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mpdit.diffusion.denoiser import Estimate
from mpdit.diffusion.multistep import adams_weights, exponential_weights
from mpdit.diffusion.samplers.dpmpp_2m import dpmpp_2m
from mpdit.diffusion.samplers.dpmpp_2m_sde import Dpmpp2mSde
from mpdit.diffusion.samplers.heun import Heun
from mpdit.diffusion.samplers.ipndm import Ipndm
from mpdit.diffusion.samplers.registry import SAMPLERS, Sampler
from mpdit.diffusion.samplers.unipc import Unipc
from mpdit.randomness import normal
from mpdit.schedules import edm_schedule

STD = 0.6
HIGH, LOW = 5.0, 0.1


def gaussian(x: Tensor, sigma: float, step: float | None = None) -> Estimate:
    """The exact denoiser of data drawn from N(0, STD²)."""
    return Estimate(x * STD**2 / (STD**2 + sigma**2), None, None)


def no_noise(step: int) -> Tensor:
    raise AssertionError(f"step {step} of an ODE asked for noise")


@pytest.mark.parametrize("places", [[1.0], [1.0, 1.7], [1.0, 1.7, 1.9], [1.0, 1.7, 1.9, 3.0], [0.4, 1.0, 1.2]])
@pytest.mark.parametrize("end", [0.4, 0.9999, -3.0])
def test_the_weights_integrate_polynomials_exactly(places: list[float], end: float) -> None:
    for power in range(len(places)):
        found = sum(w * at**power for w, at in zip(adams_weights(places, 1.0, end), places, strict=True))
        assert found == pytest.approx((end ** (power + 1) - 1) / (power + 1), rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("places", [[1.0], [1.0, 0.3], [1.0, 0.3, -1.0], [2.5, 1.0, 0.3]])
@pytest.mark.parametrize("end", [1.0 + 1e-3, 1.5, 1.999, 2.001, 2.5, 9.0])
def test_exponential_weights_do_so_under_the_exponential(places: list[float], end: float) -> None:
    nodes, at_nodes = np.polynomial.legendre.leggauss(60)
    t = 1.0 + (end - 1.0) * (nodes + 1) / 2
    for power in range(len(places)):
        wanted = float((at_nodes * np.exp(t - end) * t**power).sum() * (end - 1.0) / 2)
        found = sum(w * at**power for w, at in zip(exponential_weights(places, 1.0, end), places, strict=True))
        assert found == pytest.approx(wanted, rel=1e-7)


def test_the_weights_of_equal_steps_are_those_of_the_books() -> None:
    known = [[1], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    for weights in known:
        assert adams_weights([-float(at) for at in range(len(weights))], 0.0, 1.0) == pytest.approx(weights)


def uneven(steps: int, in_log: bool) -> Tensor:
    """Levels whose steps alternate between one and two units, then 0.

    In front of them steps double from a tiny one: the first steps of a multistep method, of a low order, then weigh
    nothing, and the order of the others is seen.
    """
    doubling = [2.0**-k for k in range(round(3 * math.log2(steps)), 0, -1)]
    lengths = torch.tensor([*doubling, *(1.0 + at % 2 for at in range(steps))], dtype=torch.float64)
    position = torch.cat([torch.zeros(1), lengths.cumsum(0) / lengths.sum()])
    levels = HIGH * (LOW / HIGH) ** position if in_log else HIGH + position * (LOW - HIGH)
    return torch.cat([levels, torch.zeros(1)]).double()


def error(sampler: Sampler, sigmas: Tensor) -> float:
    """The relative error of what is predicted at the last level above 0, which the exact flow leads to."""
    found: list[Tensor] = []

    def watched(x: Tensor, sigma: float, step: float | None = None) -> Estimate:
        if sigma == float(sigmas[-2]):
            found.append(x)
        return gaussian(x, sigma)

    x = torch.full((1, 1, 1, 1), float(sigmas[0]), dtype=torch.float64)
    sampler.draw(watched, x, sigmas, no_noise)
    wanted = float(sigmas[0]) * math.sqrt((STD**2 + float(sigmas[-2]) ** 2) / (STD**2 + float(sigmas[0]) ** 2))
    return abs(float(found[-1]) / wanted - 1)


@pytest.mark.parametrize(
    ("sampler", "order", "in_log"),
    [
        (Ipndm(history=1), 1, False),
        (Ipndm(history=2), 2, False),
        (Ipndm(history=3), 3, False),
        (Ipndm(history=4), 4, False),
        (Unipc(order=1), 2, True),
        (Unipc(order=2), 3, True),
        (Unipc(order=3), 4, True),
        (SAMPLERS["dpm++3m"], 3, True),
        (Heun(), 2, True),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_a_sampler_has_its_order_on_steps_of_two_lengths(sampler: Sampler, order: int, in_log: bool) -> None:
    coarse, fine = error(sampler, uneven(160, in_log)), error(sampler, uneven(320, in_log))
    assert fine < 0.02
    assert order - 0.2 < math.log2(coarse / fine) < order + 0.4


def test_constant_weights_would_lose_the_order_on_unequal_steps() -> None:
    """What published iPNDM does: its constants are those of equal steps."""

    class Constant(Ipndm):
        def draw(self, denoise, x, sigmas, noise_sampler):  # type: ignore[no-untyped-def]
            slopes: list[Tensor] = []
            for sigma, sigma_next in itertools.pairwise(sigmas.tolist()):
                slopes = [(x - denoise(x, sigma).denoised) / sigma, *slopes[:1]]
                weights = [1.5, -0.5] if len(slopes) > 1 else [1.0]
                for weight, slope in zip(weights, slopes, strict=True):
                    x = x + (sigma_next - sigma) * weight * slope
            return x

    coarse, fine = (error(Constant(), uneven(steps, False)) for steps in (80, 160))
    assert math.log2(coarse / fine) < 1.3


@pytest.mark.parametrize("name", ["ipndm", "unipc", "dpm++3m"])
def test_of_one_step_and_of_few_there_is_an_image(name: str) -> None:
    kind = SAMPLERS[name]
    sampler = kind() if isinstance(kind, type) else kind
    for steps in (1, 2, 3, 4, 5):
        sigmas = edm_schedule(steps)
        x = normal((3, 1, 4, 4), 0, 0, "x") * sigmas[0]
        drawn = sampler.draw(gaussian, x, sigmas, no_noise)
        assert drawn.dtype == torch.float32
        assert drawn.isfinite().all()
        if steps == 1:
            torch.testing.assert_close(drawn, gaussian(x, float(sigmas[0])).denoised, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("first", "second"), [(Ipndm(history=1), "ddim"), (Heun(churn_min=5.0), "heun")])
def test_a_setting_at_which_it_is_a_simpler_one(first: Sampler, second: str) -> None:
    kind, sigmas = SAMPLERS[second], edm_schedule(9)
    other = kind() if isinstance(kind, type) else kind
    x = normal((3, 1, 4, 4), 0, 0, "x") * sigmas[0]
    drawn = other.draw(gaussian, x, sigmas, no_noise)
    torch.testing.assert_close(first.draw(gaussian, x, sigmas, no_noise), drawn, rtol=1e-4, atol=1e-5)


def test_no_noise_is_dpm_solver_of_the_ode() -> None:
    sigmas = edm_schedule(12)
    x = (normal((3, 1, 4, 4), 0, 0, "x") * sigmas[0]).double()
    wanted = dpmpp_2m(gaussian, x, sigmas, no_noise)
    torch.testing.assert_close(Dpmpp2mSde(eta=0.0).draw(gaussian, x, sigmas, no_noise), wanted)


def variance(sampler: Sampler, steps: int) -> float:
    """The exact variance of the images, relative to the data's.

    All is linear in the independent noises, so x is followed as its coefficient of each of them.
    """
    sigmas, basis = edm_schedule(steps).double(), torch.eye(steps + 1, dtype=torch.float64)
    x = (basis[0] * sigmas[0]).reshape(1, 1, 1, -1)
    drawn = sampler.draw(gaussian, x, sigmas, lambda step: basis[step + 1].reshape(1, 1, 1, -1))
    return float(drawn.square().sum()) / STD**2


def test_the_sde_s_variance_tends_to_the_data_s() -> None:
    """At second order: 38 % too much at 10 steps, 3.3 % at 50, 0.18 % at 200."""
    found = [variance(Dpmpp2mSde(), steps) - 1 for steps in (10, 50, 200)]
    assert found == pytest.approx([0.376, 0.0328, 0.00183], rel=0.01)
    assert abs(variance(Dpmpp2mSde(eta=0.5), 200) - 1) < 0.002


def test_churned_images_have_the_data_s_variance_whatever_the_churn() -> None:
    for churn in (5.0, 40.0, 1e6):
        few, many = (abs(variance(Heun(churn=churn), steps) - 1) for steps in (40, 320))
        assert many < 0.01
        assert many < few or few < 1e-3
    lost = Heun(churn=40.0, churn_noise=0.9)
    assert variance(lost, 320) < 0.9  # as much as Algorithm 2 then takes away


def test_churn_adds_noise_between_its_levels_alone() -> None:
    sigmas, asked = edm_schedule(8), list[int]()
    x = normal((2, 1, 4, 4), 0, 0, "x") * sigmas[0]

    def noise_sampler(step: int) -> Tensor:
        asked.append(step)
        return torch.zeros_like(x)

    Heun(churn=4.0, churn_min=float(sigmas[5]), churn_max=float(sigmas[2])).draw(gaussian, x, sigmas, noise_sampler)
    assert asked == [2, 3, 4, 5]
