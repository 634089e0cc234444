"""Guidance rules: where each is classifier-free guidance, and what it keeps."""

import pytest
import torch
from torch import Tensor

from mpdit.diffusion.guidance_rules.apg import Apg
from mpdit.diffusion.guidance_rules.cfg import Cfg
from mpdit.diffusion.guidance_rules.cfg_zero import CfgZero
from mpdit.diffusion.guidance_rules.registry import GUIDANCE_RULES, GuidanceRule, Predictions
from mpdit.diffusion.guidance_rules.rescale import Rescale
from pipelines.scoring.cell import Cell, Evaluation, evaluation_of

SCALE, SIGMA = 3.0, 1.5


@pytest.fixture
def predictions() -> Predictions:
    """Conditional and unconditional images, and the noisy ones: (5, 3, 8, 8) each."""
    source = torch.Generator().manual_seed(0)
    conditional = torch.randn(5, 3, 8, 8, generator=source)
    unconditional = conditional + 0.5 * torch.randn(5, 3, 8, 8, generator=source)
    return Predictions(conditional, unconditional, torch.randn(5, 3, 8, 8, generator=source), SIGMA, SIGMA)


@pytest.mark.parametrize("rule", [Rescale(share=0.0), Apg(parallel=1.0), Apg(norm=1e6, parallel=1.0)])
def test_there_is_a_setting_at_which_each_is_classifier_free_guidance(
    rule: GuidanceRule, predictions: Predictions
) -> None:
    torch.testing.assert_close(rule.combine(predictions, SCALE), Cfg().combine(predictions, SCALE))


def test_rescaling_in_full_keeps_the_conditional_contrast(predictions: Predictions) -> None:
    found = Rescale(share=1.0).combine(predictions, SCALE)
    torch.testing.assert_close(found.std((1, 2, 3)), predictions.conditional.std((1, 2, 3)))


def test_apg_moves_across_the_image_and_no_farther_than_its_norm(predictions: Predictions) -> None:
    conditional = predictions.conditional
    for rule in (Apg(), Apg(norm=0.1)):
        step = rule.combine(predictions, SCALE) - conditional
        along = (step * conditional).sum((1, 2, 3))
        assert float(along.abs().max()) < 1e-3
    assert float(step.square().mean((1, 2, 3)).sqrt().max()) <= (SCALE - 1) * 0.1 * (1 + 1e-5)


def velocities(predictions: Predictions) -> tuple[Tensor, Tensor, Tensor]:
    """z = (1 − t)·x, and both velocities of the flow: D = z − t·v."""
    t = SIGMA / (1 + SIGMA)
    z = (1 - t) * predictions.x
    return z, (z - predictions.conditional) / t, (z - predictions.unconditional) / t


def test_cfg_zero_guides_velocities_from_the_unconditional_one_at_its_best_length(predictions: Predictions) -> None:
    z, conditional, unconditional = velocities(predictions)
    for at in range(len(z)):
        s = float(torch.linalg.lstsq(unconditional[at].reshape(-1, 1), conditional[at].reshape(-1, 1)).solution)
        velocity = s * unconditional[at] + SCALE * (conditional[at] - s * unconditional[at])
        wanted = z[at] - SIGMA / (1 + SIGMA) * velocity
        torch.testing.assert_close(CfgZero().combine(predictions, SCALE)[at], wanted, rtol=1e-4, atol=1e-4)


def test_cfg_zero_is_guidance_where_that_length_is_one(predictions: Predictions) -> None:
    z, _, unconditional = velocities(predictions)
    across = torch.randn(unconditional.shape, generator=torch.Generator().manual_seed(1))
    along = (across * unconditional).sum((1, 2, 3), keepdim=True) / unconditional.square().sum((1, 2, 3), keepdim=True)
    conditional = z - SIGMA / (1 + SIGMA) * (unconditional + across - along * unconditional)
    moved = predictions._replace(conditional=conditional)
    wanted = Cfg().combine(moved, SCALE)
    torch.testing.assert_close(CfgZero().combine(moved, SCALE), wanted, rtol=1e-4, atol=1e-4)


def test_cfg_zero_s_first_steps_leave_the_flow_s_state_as_it_is(predictions: Predictions) -> None:
    """z = x/(1 + σ) after a first-order step from D = z is z before it, whatever was predicted."""
    sigma, sigma_next = 30.0, 20.0  # t = 0.968 …
    rule, early = CfgZero(zeroed=0.04), predictions._replace(sigma=sigma, step=sigma)
    denoised = rule.combine(early, SCALE)
    x_next = denoised + sigma_next / sigma * (predictions.x - denoised)
    torch.testing.assert_close(x_next / (1 + sigma_next), predictions.x / (1 + sigma))
    assert not torch.equal(CfgZero(zeroed=0.03).combine(early, SCALE), denoised)
    second = early._replace(sigma=sigma_next)  # of Heun's step: it belongs to the same one
    assert torch.equal(rule.combine(second, SCALE), predictions.x / (1 + sigma_next))


@pytest.mark.parametrize("rule", [kind() for kind in GUIDANCE_RULES], ids=lambda rule: rule.name)
def test_an_image_does_not_depend_on_the_others_of_its_batch(rule: GuidanceRule, predictions: Predictions) -> None:
    together = rule.combine(predictions, SCALE)
    alone = [
        rule.combine(Predictions(*(images[at : at + 1] for images in predictions[:3]), SIGMA, SIGMA), SCALE)
        for at in range(len(together))
    ]
    torch.testing.assert_close(together, torch.cat(alone))
    same = predictions._replace(unconditional=predictions.conditional)
    torch.testing.assert_close(rule.combine(same, SCALE), predictions.conditional)


def test_the_default_changes_no_key_and_a_rule_with_its_settings_is_read_back() -> None:
    plain = Cell(0.1, Evaluation())
    assert Cell(0.1, Evaluation(guidance_rule="cfg")).key == plain.key
    chosen = Cell(0.1, Evaluation(guidance=2.0, guidance_rule={"name": "apg", "norm": 0.3}))
    assert chosen.key != Cell(0.1, Evaluation(guidance=2.0)).key
    assert evaluation_of(chosen.params) == chosen.evaluation
