"""Guidance rules: where each is classifier-free guidance, and what it keeps."""

import pytest
import torch
from torch import Tensor

from mpdit.diffusion.guidance_rules.apg import Apg
from mpdit.diffusion.guidance_rules.cfg import Cfg
from mpdit.diffusion.guidance_rules.registry import GUIDANCE_RULES, GuidanceRule
from mpdit.diffusion.guidance_rules.rescale import Rescale
from pipelines.scoring.cell import Cell, Evaluation, evaluation_of

SCALE = 3.0


@pytest.fixture
def predictions() -> tuple[Tensor, Tensor]:
    """Conditional and unconditional images: (5, 3, 8, 8) each."""
    source = torch.Generator().manual_seed(0)
    conditional = torch.randn(5, 3, 8, 8, generator=source)
    return conditional, conditional + 0.5 * torch.randn(5, 3, 8, 8, generator=source)


@pytest.mark.parametrize("rule", [Rescale(share=0.0), Apg(parallel=1.0), Apg(norm=1e6, parallel=1.0)])
def test_there_is_a_setting_at_which_each_is_classifier_free_guidance(
    rule: GuidanceRule, predictions: tuple[Tensor, Tensor]
) -> None:
    torch.testing.assert_close(rule.combine(*predictions, SCALE), Cfg().combine(*predictions, SCALE))


def test_rescaling_in_full_keeps_the_conditional_contrast(predictions: tuple[Tensor, Tensor]) -> None:
    found = Rescale(share=1.0).combine(*predictions, SCALE)
    torch.testing.assert_close(found.std((1, 2, 3)), predictions[0].std((1, 2, 3)))


def test_apg_moves_across_the_image_and_no_farther_than_its_norm(predictions: tuple[Tensor, Tensor]) -> None:
    conditional, _ = predictions
    for rule in (Apg(), Apg(norm=0.1)):
        step = rule.combine(*predictions, SCALE) - conditional
        along = (step * conditional).sum((1, 2, 3))
        assert float(along.abs().max()) < 1e-3
    assert float(step.square().mean((1, 2, 3)).sqrt().max()) <= (SCALE - 1) * 0.1 * (1 + 1e-5)


@pytest.mark.parametrize("rule", [kind() for kind in GUIDANCE_RULES], ids=lambda rule: rule.name)
def test_an_image_does_not_depend_on_the_others_of_its_batch(
    rule: GuidanceRule, predictions: tuple[Tensor, Tensor]
) -> None:
    together = rule.combine(*predictions, SCALE)
    alone = [rule.combine(*(images[at : at + 1] for images in predictions), SCALE) for at in range(len(together))]
    torch.testing.assert_close(together, torch.cat(alone))
    torch.testing.assert_close(rule.combine(predictions[0], predictions[0], SCALE), predictions[0])


def test_the_default_changes_no_key_and_a_rule_with_its_settings_is_read_back() -> None:
    plain = Cell(0.1, Evaluation())
    assert Cell(0.1, Evaluation(guidance_rule="cfg")).key == plain.key
    chosen = Cell(0.1, Evaluation(guidance=2.0, guidance_rule={"name": "apg", "norm": 0.3}))
    assert chosen.key != Cell(0.1, Evaluation(guidance=2.0)).key
    assert evaluation_of(chosen.params) == chosen.evaluation
