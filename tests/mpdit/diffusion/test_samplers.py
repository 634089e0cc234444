import itertools

import pytest
import torch
from torch import Tensor

from mpdit.diffusion.denoiser import Denoiser, Estimate, build_denoiser
from mpdit.diffusion.objectives.edm import Edm
from mpdit.diffusion.samplers.ddim import ddim
from mpdit.diffusion.samplers.ddpm import ddpm
from mpdit.diffusion.samplers.dpmpp_2m import dpmpp_2m
from mpdit.diffusion.samplers.heun import Heun
from mpdit.diffusion.samplers.registry import SAMPLERS, Denoise, Sampler
from mpdit.diffusion.sampling import guided, sample
from mpdit.diffusion.sampling_options import Guidance, SamplingOptions, evaluations
from mpdit.errors import InputError
from mpdit.randomness import normal
from mpdit.registry import choose
from mpdit.schedules import ddpm_schedule, ddpm_sigmas, edm_levels, edm_schedule, flow_schedule
from tests.conftest import small_architecture

STD = 0.6


def chosen(name: str, **settings: float) -> Sampler:
    """The sampler of that name with these settings."""
    found: Sampler = choose(SAMPLERS, name, settings)
    return found


def gaussian(x: Tensor, sigma: float, step: float | None = None) -> Estimate:
    """The exact denoiser of data drawn from N(0, STD²)."""
    return Estimate(x * STD**2 / (STD**2 + sigma**2), None, None)


def exact(x: Tensor, sigma: float) -> Tensor:
    """Where the exact flow from `sigma` to 0 takes x: it keeps x / √(STD² + σ²)."""
    return x * STD / (STD**2 + sigma**2) ** 0.5


def no_noise(step: int) -> Tensor:
    raise AssertionError(f"step {step} of an ODE asked for noise")


def error(sampler: str, sigmas: Tensor) -> float:
    sigmas = sigmas.double()
    x = normal((64, 1, 2, 2), 0, 0, "x").double() * sigmas[0]
    wanted = exact(x, float(sigmas[0]))
    return float((chosen(sampler).draw(gaussian, x, sigmas, no_noise) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("heun", 2), ("dpm++2m", 2)])
def test_a_sampler_reaches_the_exact_solution_at_its_order(sampler: str, order: int) -> None:
    coarse, fine = error(sampler, edm_schedule(40)), error(sampler, edm_schedule(160))
    assert fine < 0.02
    assert coarse / fine > 0.6 * 4**order


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpm++2m", "dpm++3m", "ipndm", "unipc"])
@pytest.mark.parametrize("schedule", [ddpm_schedule, flow_schedule])
def test_every_schedule_leads_to_the_exact_solution(sampler: str, schedule: object) -> None:
    assert error(sampler, schedule(250)) < 0.03  # type: ignore[operator]


def test_ancestral_steps_tend_to_the_data_s_distribution() -> None:
    found = {}
    for steps in (50, 1000):
        sigmas = ddpm_schedule(steps)
        x = normal((20_000, 1, 1, 1), 0, 0, "x") * sigmas[0]
        drawn = ddpm(gaussian, x, sigmas, lambda i, x=x: normal(tuple(x.shape), 0, i, "fresh"))
        found[steps] = float(drawn.std())
        assert float(torch.corrcoef(torch.stack([drawn.flatten(), x.flatten()]))[0, 1].abs()) < 0.03
    assert found[1000] == pytest.approx(STD, rel=0.01)
    assert abs(found[50] - STD) > 5 * abs(found[1000] - STD)  # the posterior's variance is too small for long steps


def test_the_plain_levels_are_the_schedule_s() -> None:
    for steps in [*range(1, 65), 250, 1000]:
        assert edm_levels(steps) == edm_schedule(steps).tolist()


def test_the_schedules_go_down_to_zero() -> None:
    for schedule, first, last in (
        (edm_schedule, 80.0, 0.002),
        (ddpm_schedule, float(ddpm_sigmas()[-1]), float(ddpm_sigmas()[0])),
        (flow_schedule, 999.0, 1 / 9),
    ):
        sigmas = schedule(10)
        assert sigmas.shape == (11,)
        assert sigmas[0] == pytest.approx(first, rel=1e-4)
        assert sigmas[-2] == pytest.approx(last)
        assert sigmas[-1] == 0
        assert (sigmas.diff() < 0).all()
        assert schedule(1)[0] == pytest.approx(first, rel=1e-4)


SHAPE = (8, 1, 4, 4)


def crooked(x: Tensor, sigma: float, step: float | None = None) -> Estimate:
    """No data's denoiser, but smooth and not linear, with something to say of the variance."""
    return Estimate(torch.tanh(x / (1 + sigma)) * 0.7, torch.sin(3 * x / (1 + sigma)), None)


def epsilon(denoise: Denoise, x: Tensor, sigma: float) -> Tensor:
    return (x - denoise(x, sigma).denoised) / sigma


def levels(timesteps: Tensor) -> Tensor:
    return torch.cat([ddpm_sigmas()[timesteps.long()], torch.zeros(1, dtype=torch.float64)])


@pytest.fixture
def diffusers() -> object:
    return pytest.importorskip("diffusers", reason="a test dependency")


@pytest.mark.parametrize("variance", ["fixed_small", "learned_range"])
def test_ddpm_is_that_of_diffusers(diffusers: object, variance: str) -> None:
    theirs = diffusers.DDPMScheduler(  # type: ignore[attr-defined]
        1000, 1e-4, 0.02, variance_type=variance, clip_sample=False, timestep_spacing="leading"
    )
    theirs.set_timesteps(20)
    sigmas = levels(theirs.timesteps)
    x = normal(SHAPE, 0, 0, "x").double() * sigmas[0]

    def denoise(x: Tensor, sigma: float, step: float | None = None) -> Estimate:
        estimate = crooked(x, sigma)
        return estimate if variance == "learned_range" else Estimate(estimate.denoised, None, None)

    ours_noise = torch.Generator().manual_seed(5)
    ours = ddpm(denoise, x, sigmas, lambda _: torch.randn(SHAPE, generator=ours_noise, dtype=torch.float64))
    z, noise = x / (1 + sigmas[0] ** 2) ** 0.5, torch.Generator().manual_seed(5)
    for t, sigma in zip(theirs.timesteps, sigmas.tolist(), strict=False):
        scaled = z * (1 + sigma**2) ** 0.5
        answer = epsilon(denoise, scaled, sigma)
        if variance == "learned_range":
            answer = torch.cat([answer, crooked(scaled, sigma).variance], dim=1)
        z = theirs.step(answer, t, z, generator=noise).prev_sample
    torch.testing.assert_close(ours, z, rtol=1e-4, atol=1e-4)


def test_ddim_is_that_of_diffusers(diffusers: object) -> None:
    theirs = diffusers.DDIMScheduler(1000, 1e-4, 0.02, clip_sample=False, timestep_spacing="leading")  # type: ignore[attr-defined]
    theirs.set_timesteps(20)
    sigmas = levels(theirs.timesteps)
    x = normal(SHAPE, 0, 0, "x").double() * sigmas[0]
    z = x / (1 + sigmas[0] ** 2) ** 0.5
    for t, sigma in zip(theirs.timesteps, sigmas.tolist(), strict=False):
        z = theirs.step(epsilon(crooked, z * (1 + sigma**2) ** 0.5, sigma), t, z).prev_sample
    torch.testing.assert_close(ddim(crooked, x, sigmas, no_noise), z, rtol=1e-4, atol=1e-4)


def test_flow_by_ddim_is_euler_s_method_of_diffusers(diffusers: object) -> None:
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(1000)  # type: ignore[attr-defined]
    t = flow_schedule(20).double() / (1 + flow_schedule(20).double())
    theirs.set_timesteps(sigmas=t[:-1].tolist())
    z = normal(SHAPE, 0, 0, "x").double()
    ours = ddim(crooked, z / (1 - t[0]), flow_schedule(20), no_noise)
    for at, now in zip(theirs.timesteps, t.tolist(), strict=False):
        clean = crooked(z / (1 - now), now / (1 - now)).denoised
        z = theirs.step((z - clean) / now, at, z).prev_sample
    torch.testing.assert_close(ours, z, rtol=1e-4, atol=1e-4)


def test_dpmpp_2m_is_that_of_diffusers(diffusers: object) -> None:
    theirs = diffusers.EDMDPMSolverMultistepScheduler(0.002, 80.0, 1.0, euler_at_final=True)  # type: ignore[attr-defined]
    theirs.set_timesteps(20)
    sigmas = edm_schedule(20)
    torch.testing.assert_close(theirs.sigmas, sigmas, rtol=1e-4, atol=1e-6)
    x = normal(SHAPE, 0, 0, "x") * sigmas[0]
    z = x.double()
    for t, sigma in zip(theirs.timesteps, sigmas.double().tolist(), strict=False):
        skip, out = 1 / (1 + sigma**2), sigma / (1 + sigma**2) ** 0.5
        z = theirs.step((crooked(z, sigma).denoised - skip * z) / out, t, z).prev_sample
    torch.testing.assert_close(dpmpp_2m(crooked, x.double(), sigmas, no_noise), z, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers itself
def test_heun_is_that_of_diffusers(diffusers: object) -> None:
    theirs = diffusers.HeunDiscreteScheduler(1000, 1e-4, 0.02, "linear", timestep_spacing="linspace")  # type: ignore[attr-defined]
    theirs.set_timesteps(20)
    sigmas = torch.cat([theirs.sigmas[:1], theirs.sigmas[1::2]]).double()
    x = normal(SHAPE, 0, 0, "x").double() * sigmas[0]
    z = x
    steps = list(itertools.pairwise(sigmas.tolist()))
    asked = [level for now, then in steps for level in ((now, then) if then > 0 else (now,))]
    for t, sigma in zip(theirs.timesteps, asked, strict=True):
        z = theirs.step(epsilon(crooked, z, sigma), t, z).prev_sample
    torch.testing.assert_close(Heun().draw(crooked, x, sigmas, no_noise), z, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS.names())
@pytest.mark.parametrize(("guidance", "interval"), [(1.0, None), (2.0, None), (2.0, (0.1, 10.0))])
def test_nfe_is_what_is_really_evaluated(
    sampler: str, guidance: float, interval: tuple[float, float] | None, small_denoiser: Denoiser
) -> None:
    rows: list[int] = []
    small_denoiser.network.register_forward_hook(lambda _m, inputs, _o: rows.append(len(inputs[0])))
    labels, x = torch.arange(3), torch.zeros(3, 1, 8, 8)
    options = SamplingOptions(chosen(sampler), 5, Guidance(guidance, interval))
    sample(small_denoiser, x, labels, options, lambda _: x)
    assert sum(rows) / 3 == evaluations(options, edm_levels(5))


def speaking(denoiser: Denoiser) -> Denoiser:
    """A new network that answers something, and something else for each class."""
    torch.nn.init.constant_(denoiser.network.final.gain, 1.0)
    for block in denoiser.network.blocks:
        torch.nn.init.constant_(block.mlp.conditioner.gains["scale"], 1.0)
    return denoiser


def test_guidance_moves_along_the_difference(small_denoiser: Denoiser) -> None:
    denoiser, x, labels = speaking(small_denoiser), normal((3, 1, 8, 8), 0, 0, "x"), torch.arange(3)
    free = guided(denoiser, torch.full((3,), denoiser.no_class), Guidance(1))(x, 1.0).denoised
    conditional = guided(denoiser, labels, Guidance(1))(x, 1.0).denoised
    assert (conditional - free).abs().max() > 1e-4
    strong = guided(denoiser, labels, Guidance(3))(x, 1.0).denoised
    torch.testing.assert_close(strong, free + 3 * (conditional - free), rtol=1e-4, atol=1e-5)


def test_outside_its_interval_guidance_is_off(small_denoiser: Denoiser) -> None:
    denoiser, x, labels = speaking(small_denoiser), normal((3, 1, 8, 8), 0, 0, "x"), torch.arange(3)
    some = guided(denoiser, labels, Guidance(3, (0.5, 2.0)))
    for sigma, scale in ((0.4, 1), (0.5, 1), (0.6, 3), (2.0, 3), (2.1, 1)):
        torch.testing.assert_close(
            some(x, sigma).denoised, guided(denoiser, labels, Guidance(scale))(x, sigma).denoised
        )


@pytest.mark.parametrize("sampler", SAMPLERS.names())
def test_all_evaluations_of_a_step_are_guided_or_none(sampler: str, small_denoiser: Denoiser) -> None:
    """The interval holds the start of the second of four steps alone: no other step evaluates two predictions."""
    rows: list[int] = []
    small_denoiser.network.register_forward_hook(lambda _m, inputs, _o: rows.append(len(inputs[0])))
    levels, x = edm_levels(4), torch.zeros(2, 1, 8, 8)
    guidance = Guidance(2.0, ((levels[1] + levels[2]) / 2, levels[1]))
    sample(small_denoiser, x, torch.arange(2), SamplingOptions(chosen(sampler), 4, guidance), lambda _: x)
    each = 2 if sampler == "heun" else 1
    assert rows == [2] * each + [4] * each + [2] * each + [2]


def test_a_guide_that_is_the_network_itself_changes_nothing(small_denoiser: Denoiser) -> None:
    denoiser, x, labels = speaking(small_denoiser), normal((3, 1, 8, 8), 0, 0, "x"), torch.arange(3)
    alone = guided(denoiser, labels, Guidance())(x, 1.0).denoised
    for scale in (0.0, 2.0, 7.5):
        asked_alike = Guidance(scale, empty_label=False)
        torch.testing.assert_close(guided(denoiser, labels, asked_alike, denoiser)(x, 1.0).denoised, alone)
        torch.testing.assert_close(guided(denoiser, labels, asked_alike)(x, 1.0).denoised, alone)
        without = guided(denoiser, labels, Guidance(scale))(x, 1.0).denoised
        by_guide = guided(denoiser, labels, Guidance(scale), denoiser)(x, 1.0).denoised
        torch.testing.assert_close(by_guide, without, rtol=1e-4, atol=1e-5)  # classifier-free guidance


def test_a_guide_moves_the_prediction_away_from_its_own(small_denoiser: Denoiser) -> None:
    denoiser, x, labels = speaking(small_denoiser), normal((3, 1, 8, 8), 0, 0, "x"), torch.arange(3)
    guide = speaking(build_denoiser(small_architecture(), Edm(sigma_data=0.75), seed=1))
    own, other = (guided(network, labels, Guidance())(x, 1.0).denoised for network in (denoiser, guide))
    assert (own - other).abs().max() > 1e-3
    for scale in (0.5, 2.0, 4.0):
        found = guided(denoiser, labels, Guidance(scale, empty_label=False), guide)(x, 1.0).denoised
        torch.testing.assert_close(found, other + scale * (own - other), rtol=1e-4, atol=1e-5)


def test_at_a_scale_of_one_and_outside_the_interval_no_guide_is_called(small_denoiser: Denoiser) -> None:
    guide = build_denoiser(small_architecture(), Edm(sigma_data=0.75), seed=1)
    guide.network.register_forward_hook(lambda *_: pytest.fail("the guide was called"))
    x, labels = normal((2, 1, 8, 8), 0, 0, "x"), torch.arange(2)
    for guidance in (Guidance(1.0), Guidance(3.0, (90.0, 100.0))):
        options = SamplingOptions(chosen("heun"), 3, guidance)
        plain = sample(small_denoiser, x, labels, SamplingOptions(chosen("heun"), 3), no_noise)
        assert torch.equal(sample(small_denoiser, x, labels, options, no_noise, guide=guide), plain)


def test_an_unknown_sampler_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no sampler 'dpmpp2m'\n(.*\n)*.*nearest: +dpm\+\+2m"):
        SAMPLERS["dpmpp2m"]
