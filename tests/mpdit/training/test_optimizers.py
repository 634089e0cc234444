"""Optimisers: their own equations, and a training that goes on exactly where it stopped."""

import math
import subprocess
import sys

import pytest
import torch

from mpdit.diffusion.denoiser import Denoiser, build_denoiser
from mpdit.diffusion.loss import DenoisingLoss
from mpdit.diffusion.objectives.edm import Edm
from mpdit.model.design import DESIGNS
from mpdit.training.optimizers.adam import Adam
from mpdit.training.optimizers.adamw import AdamW
from mpdit.training.optimizers.muon import Muon
from mpdit.training.optimizers.registry import OPTIMIZERS, Optimizer, uncompiled
from mpdit.training.step import BatchSampler, TrainingState, accumulate_gradient, apply_gradient, new_state
from pipelines.recipe import Recipe
from pipelines.training.state_tensors import load_state, state_tensors
from tests.conftest import small_architecture

BETAS, LR = (0.9, 0.99), 0.01


def denoiser(design: str = "C") -> Denoiser:
    """A small network; in C no weights are set back after a step."""
    return build_denoiser(small_architecture(design=DESIGNS[design]), Edm(0.75), seed=0)


def gradients(of: Denoiser, seed: int = 0) -> None:
    """Put random gradients where a backward pass would."""
    source = torch.Generator().manual_seed(seed)
    for parameter in of.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=source)


def change(optimizer: Optimizer, steps: int = 1) -> dict[str, torch.Tensor]:
    """How every parameter changes in some steps of random gradients."""
    made = denoiser()
    state = new_state(made, BETAS, optimizer)
    before = {name: parameter.detach().clone() for name, parameter in made.named_parameters()}
    for number in range(steps):
        gradients(made, number)
        apply_gradient(state, LR)
    return {name: parameter.detach() - before[name] for name, parameter in made.named_parameters()}


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.Muon])
def test_an_optimiser_without_the_compiler_takes_torch_s_own_steps(kind: type[torch.optim.Optimizer]) -> None:
    """To the bit; and as its steps do, it leaves no graph."""
    source = torch.Generator().manual_seed(0)
    first = torch.randn(6, 4, generator=source)
    ways = []
    for made in (kind, uncompiled(kind)):
        weight = torch.nn.Parameter(first.clone())
        optimizer = made([{"params": [weight], "factor": 1.0}], lr=LR)
        for _ in range(3):
            weight.grad = torch.randn(6, 4, generator=source.manual_seed(1))
            optimizer.step()
        ways.append(weight)
    assert torch.equal(*ways)
    assert ways[1].is_leaf


def test_a_training_on_one_cpu_imports_no_compiler() -> None:
    """It takes seconds, in every worker; nor what shares a network between processes."""
    code = """
import sys, tempfile, pathlib
from pipelines.recipe import Recipe
from pipelines.training.trainer import train
small = {"model": {"width": 16}, "steps": 1, "batch": 4, "runtime": {"device": "cpu", "threads": 1, "compile": False}}
train(Recipe.model_validate(small), pathlib.Path(tempfile.mkdtemp()) / "run", print)
loaded = {"torch._dynamo", "torch.distributed.tensor", "sympy"} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_muon_s_step_is_its_polynomial_on_the_singular_values() -> None:
    """Five times 3.4445s − 4.7750s³ + 2.0315s⁵ on those of G/‖G‖, here in bf16: 0.68 … 1.2 where s is above 0.003."""
    made = denoiser()
    gradients(made)
    before = {name: parameter.detach().clone() for name, parameter in made.named_parameters()}
    apply_gradient(new_state(made, BETAS, Muon()), LR)
    hidden = {name: p for name, p in made.named_parameters() if ".blocks." in name and p.ndim == 2}
    assert len(hidden) >= 8
    for name, parameter in hidden.items():
        assert parameter.grad is not None
        left, s, right = torch.linalg.svd(parameter.grad / parameter.grad.norm(), full_matrices=False)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        step = -0.2 * LR * math.sqrt(max(parameter.shape)) * (left * s) @ right
        moved = parameter.detach() - before[name]
        assert float((moved - step).norm() / step.norm()) < 0.05, name
        assert float(moved.square().mean().sqrt()) == pytest.approx(0.2 * LR, rel=0.3)


def test_muon_leaves_all_other_parameters_to_adam() -> None:
    muon, adam = change(Muon(), steps=3), change(Adam(), steps=3)
    hidden = {name for name in muon if ".blocks." in name and muon[name].ndim == 2}
    assert set(muon) > hidden
    for name in set(muon) - hidden:
        assert torch.equal(muon[name], adam[name]), name


def test_adamw_s_matrices_decay_and_its_vectors_do_not() -> None:
    before = dict(denoiser().named_parameters())
    plain, none, decayed = change(Adam()), change(AdamW(weight_decay=0.0)), change(AdamW(weight_decay=0.5))
    for name, parameter in before.items():
        assert torch.equal(plain[name], none[name]), name
        lost = LR * 0.5 * parameter.detach() if parameter.ndim > 1 else torch.zeros_like(parameter)
        torch.testing.assert_close(plain[name] - decayed[name], lost, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", list(OPTIMIZERS), ids=lambda kind: kind.name)
def test_a_training_goes_on_exactly_where_it_stopped(kind: type[Optimizer]) -> None:
    digits = Recipe().dataset

    def trained(state: TrainingState, steps: int) -> TrainingState:
        loss, batches = DenoisingLoss(state.denoiser), BatchSampler(digits, 0, 16, 0.1)
        for _ in range(steps):
            accumulate_gradient(loss, batches.draw(state.step + 1))
            apply_gradient(state, LR)
        return state

    whole = trained(new_state(denoiser(), BETAS, kind()), 5)
    stopped = trained(new_state(denoiser(), BETAS, kind()), 3)
    saved = {name: tensor.clone() for name, tensor in state_tensors(stopped).items()}
    going_on = new_state(denoiser(), BETAS, kind())
    load_state(going_on, 3, saved)
    ours, theirs = state_tensors(trained(going_on, 2)), state_tensors(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_decay_that_forced_normalisation_would_undo_is_refused() -> None:
    fields = {"model": {"design": "F"}, "optimizer": {"name": "adamw"}}
    with pytest.raises(ValueError, match="forced weight normalisation undoes weight decay"):
        Recipe.model_validate(fields)
    Recipe.model_validate({"model": {"design": "A"}, "optimizer": {"name": "adamw"}})
    Recipe.model_validate({"model": {"design": "F"}, "optimizer": {"name": {"name": "adamw", "weight_decay": 0}}})
