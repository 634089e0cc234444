import dataclasses
import math

import pytest
import torch

from mpdit.diffusion.denoiser import Denoiser, build_denoiser
from mpdit.diffusion.loss import DenoisingLoss
from mpdit.diffusion.objectives.ddpm import Ddpm
from mpdit.diffusion.objectives.edm import Edm
from mpdit.diffusion.objectives.flow import Flow
from mpdit.diffusion.objectives.registry import OBJECTIVES, Objective, objective_as_dict, objective_from
from mpdit.diffusion.variational_bound import learned_log_variance, step_back, variational_bound
from mpdit.errors import InputError
from mpdit.randomness import normal
from mpdit.schedules import ddpm_sigmas
from tests.conftest import small_architecture

ALL = [Edm(0.75), Ddpm(0.75), Flow(0.75), Flow(0.75, t_std=1.0, shift=2.0)]


def small(objective: Objective) -> Denoiser:
    return build_denoiser(small_architecture(learned_variance=objective.learned_variance), objective, seed=0)


def levels(objective: Objective) -> torch.Tensor:
    return objective.noise_levels(normal((20_000,), 0, 0, "levels"))


def test_a_new_denoiser_shrinks_noise_as_a_gaussian_prior_would(small_denoiser: Denoiser) -> None:
    x, sigma = normal((4, 1, 8, 8), 0, 0, "x"), torch.tensor([0.1, 0.75, 3.0, 80.0])
    shrink = 0.75**2 / (sigma**2 + 0.75**2)
    torch.testing.assert_close(small_denoiser(x, sigma, torch.arange(4)), x * shrink[:, None, None, None])


def test_edm_loses_one_at_every_level_on_gaussian_data_at_first(small_denoiser: Denoiser) -> None:
    images = 0.75 * normal((4096, 1, 8, 8), 0, 0, "images")
    labels = torch.zeros(4096, dtype=torch.int64)
    for mean in (-2.0, 0.0, 2.0):
        small_denoiser.objective = Edm(0.75, p_mean=mean, p_std=1e-6)
        loss = DenoisingLoss(small_denoiser)(images, labels, normal((4096, 65), 0, 0, "noise"))
        assert float(loss.detach()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("objective", [Flow(0.75), Edm(0.75, uncertainty=True)])
def test_a_new_networks_loss_is_the_target_s_mean_square(objective: Objective) -> None:
    images = 0.75 * normal((4096, 1, 8, 8), 0, 0, "images")
    loss = DenoisingLoss(small(objective))(images, torch.zeros(4096).long(), normal((4096, 65), 0, 0, "noise"))
    assert float(loss.detach()) == pytest.approx(1 if objective.name == "edm" else 1 + 0.75**2, rel=0.02)


@pytest.mark.parametrize("objective", ALL)
def test_a_network_that_answers_its_target_gives_the_clean_image(objective: Objective) -> None:
    clean, noise = normal((64, 1, 8, 8), 0, 0, "clean"), normal((64, 1, 8, 8), 0, 0, "n")
    sigma = levels(objective)[:64].reshape(-1, 1, 1, 1)
    noisy = clean + sigma * noise
    skip, out = objective.coefficients(sigma)
    target = {
        "edm": (clean - skip * noisy) / out,
        "ddpm": noise,
        "flow": (noise - clean) / math.hypot(1, 0.75),
    }[objective.name]
    torch.testing.assert_close(skip * noisy + out * target, clean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("objective", ALL)
def test_the_loss_weight_counts_the_networks_own_error_alike_at_every_level(objective: Objective) -> None:
    sigma = levels(objective)
    weight = objective.loss_weight(sigma) * objective.coefficients(sigma)[1] ** 2
    torch.testing.assert_close(weight, weight[:1].expand(len(weight)), rtol=1e-4, atol=0)


def test_noise_levels_are_log_normal() -> None:
    found = Edm(0.75, p_mean=-0.4, p_std=1.2).noise_levels(normal((100_000,), 0, 0, "levels")).log()
    assert float(found.mean()) == pytest.approx(-0.4, abs=0.02)
    assert float(found.std()) == pytest.approx(1.2, abs=0.02)


def test_edm_s_noise_levels_keep_their_place_beside_the_data() -> None:
    """EDM2 trains latents of standard deviation 0.5 with −0.4; ours have 1. Pixels keep −0.4, whatever their spread."""
    noise = normal((1000,), 0, 0, "levels")
    ours = Edm(1.0, pixels=False).noise_levels(noise)
    torch.testing.assert_close(ours, Edm(0.5, p_mean=-0.4).noise_levels(noise) / 0.5, rtol=1e-4, atol=0)
    assert torch.equal(Edm(0.7521).noise_levels(noise), Edm(0.7521, p_mean=-0.4).noise_levels(noise))
    assert torch.equal(Edm(1.0, pixels=False, p_mean=0.1).noise_levels(noise), Edm(p_mean=0.1).noise_levels(noise))


def test_ddpm_draws_every_one_of_its_levels_equally_often() -> None:
    drawn = Ddpm(1.0).noise_levels(normal((200_000,), 0, 0, "levels"))
    counts = torch.bincount(torch.searchsorted(ddpm_sigmas().float(), drawn), minlength=1000)
    assert counts.sum() == 200_000
    assert float(counts.double().std()) < 1.3 * 200**0.5


def test_ddpm_levels_are_the_linear_betas() -> None:
    kept = 1 / (1 + ddpm_sigmas() ** 2)
    betas = 1 - kept[1:] / kept[:-1]
    torch.testing.assert_close(betas.diff(), torch.full((998,), 0.0199 / 999, dtype=torch.float64))
    assert float(1 - kept[0]) == pytest.approx(1e-4)


def test_flow_draws_t_uniformly() -> None:
    sigma = levels(Flow(1.0))
    t = (sigma / (1 + sigma)).sort().values
    torch.testing.assert_close(t, torch.linspace(0, 1, len(t)), atol=0.02, rtol=0)


def test_logit_normal_times_are_edm_s_levels_and_a_shift_moves_their_mean() -> None:
    drawn = normal((1000,), 0, 0, "z")
    flow = Flow(1.0, t_mean=-0.5, t_std=1.3)
    torch.testing.assert_close(flow.noise_levels(drawn), Edm(1.0, p_mean=-0.5, p_std=1.3).noise_levels(drawn))
    moved = Flow(1.0, t_mean=-0.5 + math.log(3), t_std=1.3)
    shifted = dataclasses.replace(flow, shift=3.0)
    torch.testing.assert_close(shifted.noise_levels(drawn), moved.noise_levels(drawn))


def test_a_shift_of_uniform_times_is_its_formula() -> None:
    drawn = normal((1000,), 0, 0, "z")
    t, shifted = (s / (1 + s) for s in (Flow(1.0, shift=a).noise_levels(drawn) for a in (1.0, 3.0)))
    torch.testing.assert_close(shifted, 3 * t / (1 + 2 * t))


def test_uniform_times_have_no_mean() -> None:
    with pytest.raises(InputError, match="logit-normal"):
        Flow(1.0, t_mean=1.0)


def test_the_step_back_has_bayes_mean_and_variance() -> None:
    now, then = torch.tensor([3.0, 1.2], dtype=torch.float64).split(1)
    clean = 0.4
    share, lower, upper = step_back(now, then)
    grid = torch.linspace(-15, 15, 200_001, dtype=torch.float64)  # of x', given x = 2.5 and the clean value
    x = 2.5
    log_density = -((grid - clean) ** 2) / (2 * then**2) - (x - grid) ** 2 / (2 * (now**2 - then**2))
    density = log_density.softmax(0)
    mean = (density * grid).sum()
    torch.testing.assert_close(mean.reshape(1), clean + share * (x - clean))
    torch.testing.assert_close((density * (grid - mean) ** 2).sum().reshape(1), lower)
    assert lower < upper


def test_a_learned_variance_moves_between_its_bounds() -> None:
    lower, upper = torch.tensor(0.1), torch.tensor(0.4)
    for place, wanted in ((-1.0, 0.1), (0.0, 0.2), (1.0, 0.4)):
        assert float(learned_log_variance(torch.tensor(place), lower, upper).exp()) == pytest.approx(wanted)


def test_the_bound_is_zero_for_the_true_step_and_grows_with_the_error() -> None:
    sigma = ddpm_sigmas()[[400, 700]]
    clean = 0.5 * normal((2, 1, 4, 4), 0, 0, "clean").double()
    lowest = torch.full_like(clean, -1.0)
    exact = variational_bound(clean, clean, lowest, sigma)
    assert float(exact.abs().max()) < 1e-5
    off = [variational_bound(clean, clean + error, lowest, sigma) for error in (0.1, 0.3)]
    torch.testing.assert_close(off[1] / off[0], torch.full((2,), 9.0).double(), rtol=1e-6, atol=0)


def test_the_last_step_is_charged_for_its_8_bit_values() -> None:
    sigma = ddpm_sigmas().float()[:1]
    clean = torch.zeros(1, 1, 4, 4)
    sure = variational_bound(clean, clean, torch.full_like(clean, -1.0), sigma)
    wrong = variational_bound(clean, clean + 0.1, torch.full_like(clean, -1.0), sigma)
    assert 0 < float(sure) < 2 < float(wrong)


def test_the_last_step_of_latents_has_no_bins() -> None:
    sigma = ddpm_sigmas()[[0, 1]]
    clean = 3 * normal((2, 4, 4, 4), 0, 0, "clean").double()  # beyond −1 … 1, where the outer bins would reach
    lowest = torch.full_like(clean, -1.0)
    exact, off = (variational_bound(clean, clean + e, lowest, sigma, is_8_bit=False) for e in (0.0, 0.01))
    assert float(exact.abs().max()) < 1e-5
    assert (off > exact).all()
    binned = variational_bound(clean, clean, lowest, sigma)
    assert float(binned[0]) > 0.1  # what bins would charge for exact values
    assert float(binned[1]) == float(exact[1])


def test_the_loss_knows_whether_the_data_has_bins() -> None:
    images, labels = normal((2, 1, 8, 8), 0, 0, "images"), torch.arange(2)
    level = torch.special.ndtri(torch.tensor([[0.0005], [0.5]]))  # the first of the 1000 levels, and one in the middle
    noise = torch.cat([level, normal((2, 64), 0, 0, "noise")], dim=1)
    losses = []
    for pixels in (True, False):
        torch.manual_seed(0)
        loss = DenoisingLoss(small(Ddpm(1.0, pixels)))
        with torch.no_grad():
            parts = zip(images.split(1), labels.split(1), noise.split(1), strict=True)
            losses.append([float(loss(*part)) for part in parts])
    assert losses[0][0] != losses[1][0]
    assert losses[0][1] == losses[1][1]


def test_the_bound_teaches_the_variance_alone() -> None:
    denoiser = small(Ddpm(0.75))
    torch.nn.init.constant_(denoiser.network.final.gain, 0.5)
    noisy, sigma = normal((4, 1, 8, 8), 0, 0, "x"), torch.full((4,), float(ddpm_sigmas()[500]))
    estimate = denoiser.estimate(noisy, sigma, torch.arange(4))
    assert estimate.variance is not None
    variational_bound(noisy * 0, estimate.denoised.detach(), estimate.variance, sigma).mean().backward()
    of_clean, of_variance = denoiser.network.final.proj_out.weight.grad.reshape(4, 2, 32).abs().unbind(1)
    assert of_clean.max() == 0
    assert of_variance.min() > 0


def test_learned_uncertainty_settles_at_the_log_of_the_loss() -> None:
    loss, u = torch.tensor(0.3), torch.tensor(0.0, requires_grad=True)
    optimizer = torch.optim.SGD([u], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        (loss * torch.exp(-u) + u).backward()
        optimizer.step()
    assert float(u.detach()) == pytest.approx(math.log(0.3), abs=1e-3)


@pytest.mark.parametrize("objective", [*ALL, Edm(0.5, -1.0, 1.5, uncertainty=True)])
def test_an_objective_survives_its_plain_values(objective: Objective) -> None:
    assert objective_from(objective_as_dict(objective)) == objective
    assert set(OBJECTIVES.names()) == {"edm", "ddpm", "flow"}


def test_an_unknown_objective_is_refused() -> None:
    with pytest.raises(InputError, match="flow"):
        objective_from({"name": "flwo", "sigma_data": 1.0})
