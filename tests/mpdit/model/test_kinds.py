"""Every kind of attention and of MLP in a whole network: trained, folded, under µP, compiled, stored and read."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mpdit.data.registry import load_dataset
from mpdit.diffusion.denoiser import Denoiser, build_denoiser
from mpdit.diffusion.loss import DenoisingLoss
from mpdit.diffusion.objectives.edm import Edm
from mpdit.errors import InputError
from mpdit.inference.ahead_of_time import compile_ahead_of_time
from mpdit.inference.folding import fold
from mpdit.model.architecture import Architecture, architecture_from, can_be_turned
from mpdit.model.design import DESIGNS
from mpdit.model.layers import magnitude, normalised_weights
from mpdit.model.mup import parameter_roles
from mpdit.model.transformer import Transformer, forward_flop, parameter_count
from mpdit.randomness import normal
from mpdit.training.step import BatchSampler, accumulate_gradient, apply_gradient, new_state
from tests.conftest import small_architecture
from tests.mpdit.model.kinds import ATTENTION_KINDS, MLP_KINDS, NORM_KINDS, POSITION_KINDS

CHANGES: dict[str, dict[str, Any]] = {  # each kind in the default network, and some pairs
    **{f"attention: {name}": {"attention": kind} for name, kind in ATTENTION_KINDS.items()},
    **{f"mlp: {name}": {"mlp": kind} for name, kind in MLP_KINDS.items()},
    "skips": {"skips": True},
    **{f"positions: {name}": {"positions": kind} for name, kind in POSITION_KINDS.items()},
}
IN_COMPANY: dict[str, dict[str, Any]] = {  # each attention once, each other kind in one of them
    "softmax": {"mlp": MLP_KINDS["swiglu"], "positions": POSITION_KINDS["rope2d"], "skips": True},
    "window, 1.5, 3": {"mlp": MLP_KINDS["silu"]},
    "linear, 3": {"positions": POSITION_KINDS["table"]},
    "conv, 5": {"skips": True},
    "delta": {},
}
PAIRS = list(itertools.product(ATTENTION_KINDS, MLP_KINDS))
changes = pytest.mark.parametrize("change", CHANGES)


def architecture(change: str, design: str = "F", **more: Any) -> Architecture:
    return small_architecture(design=DESIGNS[design], **CHANGES[change], **more)


def trained(chosen: Architecture, steps: int = 3, lr: float = 0.02) -> tuple[Denoiser, list[float]]:
    digits = load_dataset("digits")
    denoiser = build_denoiser(chosen, Edm(digits.std), seed=0)
    state, loss, batches = new_state(denoiser, (0.9, 0.99)), DenoisingLoss(denoiser), BatchSampler(digits, 0, 16, 0.1)
    losses = []
    for step in range(1, steps + 1):
        losses.append(float(accumulate_gradient(loss, batches.draw(step))))
        apply_gradient(state, lr)
    return denoiser, losses


def inputs(count: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return normal((count, 1, 8, 8), 0, 0, "images"), torch.linspace(0.01, 20, count), torch.arange(count)


@changes
@pytest.mark.parametrize("design", DESIGNS)
def test_it_trains_in_every_design(change: str, design: str) -> None:
    denoiser, losses = trained(architecture(change, design), lr=0.02 if design in "CDEF" else 0.002)
    assert all(0 < loss < 10 for loss in losses)
    assert all(parameter.isfinite().all() for parameter in denoiser.parameters())


@changes
def test_after_steps_in_design_f_streams_and_stored_weights_have_unit_magnitude(change: str) -> None:
    denoiser, _ = trained(architecture(change))
    for weight in normalised_weights(denoiser):
        torch.testing.assert_close(magnitude(weight.detach()), torch.ones(len(weight)), rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        for block in denoiser.network.blocks:
            y = block(normal((2, 16, 32), 0, 0, "x"), normal((2, 32), 0, 0, "c"))
            torch.testing.assert_close(magnitude(y), torch.ones(2, 16), rtol=1e-3, atol=1e-3)


@changes
def test_every_matrix_is_normalised_in_design_f(change: str) -> None:
    network = Transformer(architecture(change))
    matrices = {id(p) for p in network.parameters() if p.ndim == 2}
    assert matrices == {id(w) for w in normalised_weights(network)}
    assert all(p.ndim in (0, 2) for p in network.parameters())


@changes
@pytest.mark.parametrize("design", ["A", "C", "F"])
def test_a_folded_network_gives_the_same_images(change: str, design: str) -> None:
    denoiser, _ = trained(architecture(change, design), lr=0.02 if design in "CF" else 0.002)
    with torch.no_grad():
        torch.testing.assert_close(fold(denoiser)(*inputs()), denoiser(*inputs()), rtol=1e-4, atol=1e-4)


@changes
@pytest.mark.parametrize("design", ["A", "F"])
def test_under_mup_no_matrix_within_a_block_is_a_readout(change: str, design: str) -> None:
    """A role follows from what grows with the width: what reads the stream into a fixed number would start at 0."""
    network, wider = (Transformer(architecture(change, design, width=32 * n, heads=2 * n)) for n in (1, 2))
    roles = parameter_roles(network, wider)
    assert {name for name, role in roles.items() if role == "output"} <= {"final.proj_out.weight"}
    assert {"hidden"} == {role for name, role in roles.items() if name.endswith(("proj.weight", "fc2.weight"))}


@changes
def test_at_the_base_width_mup_is_the_standard_parametrisation_in_design_f(change: str) -> None:
    one, other = (trained(architecture(change, base_width=base))[0] for base in (None, 32))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@changes
def test_what_is_stored_of_it_is_read_back(change: str) -> None:
    chosen = architecture(change)
    assert architecture_from(json.loads(json.dumps(chosen.as_dict()))) == chosen


@changes
def test_its_cost_grows_with_depth_and_is_counted(change: str) -> None:
    costs = [forward_flop(architecture(change, depth=depth)) for depth in (2, 4, 6)]
    assert costs[2] - costs[1] == costs[1] - costs[0] > 0
    assert parameter_count(architecture(change)) == sum(
        p.numel() for p in Transformer(architecture(change)).parameters()
    )


@pytest.mark.parametrize(("attention", "mlp"), PAIRS)
@pytest.mark.parametrize("design", ["A", "F"])
def test_any_two_kinds_go_together(attention: str, mlp: str, design: str) -> None:
    kinds = {"attention": ATTENTION_KINDS[attention], "mlp": MLP_KINDS[mlp]}
    network = Transformer(small_architecture("rotation+gate", depth=1, design=DESIGNS[design], **kinds))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    network(normal((2, 1, 8, 8), 0, 0, "x"), torch.zeros(2), torch.arange(2)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("attention", ATTENTION_KINDS)
@pytest.mark.parametrize("positions", POSITION_KINDS)
def test_positions_go_with_an_attention_or_are_refused_with_both_named(attention: str, positions: str) -> None:
    kinds: dict[str, Any] = {"attention": ATTENTION_KINDS[attention], "positions": POSITION_KINDS[positions]}
    try:
        network = Transformer(small_architecture(depth=1, **kinds))
    except InputError as refusal:
        assert f"attention: {kinds['attention'].name}, positions: {kinds['positions'].name}" in str(refusal)
        assert not can_be_turned(kinds["attention"])
        return
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    images = normal((1, 1, 8, 8), 0, 0, "x")
    one, other = (network(x, torch.zeros(1), torch.zeros(1, dtype=torch.int64)) for x in (images, images.mT))
    assert not torch.allclose(one.mT, other, atol=1e-3)  # rows are not columns


@pytest.mark.parametrize("norm", NORM_KINDS)
@pytest.mark.parametrize("design", DESIGNS)
def test_a_norm_trains_where_there_is_a_place_for_it_and_is_refused_elsewhere(norm: str, design: str) -> None:
    if norm != "layer" and not DESIGNS[design].layer_norm:
        with pytest.raises(InputError, match="norm: rms, in a design without layer_norm"):
            small_architecture(design=DESIGNS[design], norm=NORM_KINDS[norm])
        return
    chosen = small_architecture(design=DESIGNS[design], norm=NORM_KINDS[norm])
    assert architecture_from(json.loads(json.dumps(chosen.as_dict()))) == chosen
    assert parameter_count(chosen) == parameter_count(small_architecture(design=DESIGNS[design]))
    assert all(0 < loss < 10 for loss in trained(chosen, lr=0.002)[1])


def assert_compiled_gives_the_same(chosen: Architecture, folder: Path, *, stays_plain: bool) -> None:
    denoiser, _ = trained(chosen)
    with torch.inference_mode():
        plain, compiled = fold(denoiser), fold(denoiser)
        compiled(*inputs(1))
        assert compile_ahead_of_time(compiled.network, folder) != stays_plain
        torch.testing.assert_close(compiled(*inputs()), plain(*inputs()), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("attention", IN_COMPANY)
def test_compiled_kinds_in_one_network_give_the_same(attention: str, tmp_path: Path) -> None:
    chosen = small_architecture(attention=ATTENTION_KINDS[attention], **IN_COMPANY[attention])
    assert_compiled_gives_the_same(chosen, tmp_path, stays_plain=attention == "delta")  # see Delta


@pytest.mark.soak
@changes
@pytest.mark.parametrize("design", ["A", "F"])
def test_compiled_it_gives_the_same(change: str, design: str, tmp_path: Path) -> None:
    """Adds to CI: every kind of layer compiled by itself, in designs A and F; CI has some together, in F."""
    assert_compiled_gives_the_same(architecture(change, design), tmp_path, stays_plain="delta" in change)
