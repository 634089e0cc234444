import pytest
import torch

from mpdit.diffusion import Denoiser, Edm, denoising_loss
from mpdit.randomness import normal


def test_a_new_denoiser_shrinks_noise_as_a_gaussian_prior_would(small_denoiser: Denoiser) -> None:
    x, sigma = normal((4, 1, 8, 8), 0, 0, "x"), torch.tensor([0.1, 0.75, 3.0, 80.0])
    shrink = 0.75**2 / (sigma**2 + 0.75**2)
    torch.testing.assert_close(small_denoiser(x, sigma, torch.arange(4)), x * shrink[:, None, None, None])


def test_the_loss_of_a_new_network_on_gaussian_data_is_one_at_every_level(small_denoiser: Denoiser) -> None:
    images = 0.75 * normal((4096, 1, 8, 8), 0, 0, "images")
    labels = torch.zeros(4096, dtype=torch.int64)
    for mean in (-2.0, 0.0, 2.0):
        objective = Edm(0.75, p_mean=mean, p_std=1e-6)
        loss = denoising_loss(small_denoiser, objective, images, labels, normal((4096, 65), 0, 0, "noise"))
        assert float(loss.detach()) == pytest.approx(1, abs=0.02)


def test_noise_levels_are_log_normal() -> None:
    levels = Edm(0.75, p_mean=-0.4, p_std=1.2).noise_levels(normal((100_000,), 0, 0, "levels")).log()
    assert float(levels.mean()) == pytest.approx(-0.4, abs=0.02)
    assert float(levels.std()) == pytest.approx(1.2, abs=0.02)
