"""The loss that training minimises."""

import torch
from torch import Tensor, nn

from mpdit.diffusion.denoiser import Denoiser
from mpdit.diffusion.variational_bound import variational_bound


class DenoisingLoss(nn.Module):
    """The mean loss of a batch, () fp32: a module, so that compilers and several processes can wrap it.

    images: (batch, channels, resolution, resolution), labels: (batch,) int64, noise: (batch, 1 + channels·resolution²)
    standard normal; its first column chooses the level.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        objective = self.denoiser.objective
        sigma = objective.noise_levels(noise[:, 0])
        noisy = images + sigma.reshape(-1, 1, 1, 1) * noise[:, 1:].reshape(images.shape)
        estimate = self.denoiser.estimate(noisy, sigma, labels)
        loss = objective.loss_weight(sigma) * (estimate.denoised - images).square().mean(dim=(1, 2, 3))
        if estimate.logvar is not None:
            loss = loss * torch.exp(-estimate.logvar) + estimate.logvar
        if estimate.variance is not None:
            denoised = estimate.denoised.detach()
            loss = loss + variational_bound(images, denoised, estimate.variance, sigma, is_8_bit=objective.pixels)
        return loss.mean()
