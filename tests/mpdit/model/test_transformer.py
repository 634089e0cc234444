import pytest
import torch

from mpdit.errors import InputError
from mpdit.model.architecture import SIZES, Architecture
from mpdit.model.attention.softmax import Softmax
from mpdit.model.design import DESIGNS, SWITCHES, choose_design
from mpdit.model.layers import magnitude, normalised_weights, normalize
from mpdit.model.positions.layers.table import unit_positions
from mpdit.model.transformer import (
    build_transformer,
    parameter_count,
    patchify,
    unpatchify,
)
from mpdit.randomness import normal
from tests.conftest import small_architecture


def published(size: str, patch: int, modulation: str, design: str = "E") -> Architecture:
    depth, width, heads = SIZES[size]
    shape = {"channels": 4, "resolution": 16, "classes": 1000, "learned_variance": True}
    return Architecture(depth, width, heads, patch, modulation, **shape, design=DESIGNS[design])


def test_patchify_is_undone_by_unpatchify() -> None:
    images = normal((3, 2, 8, 8), 0, 0, "images")
    torch.testing.assert_close(unpatchify(patchify(images, 2), 2, 2), images)


def test_patchify_keeps_a_patch_together() -> None:
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert patchify(images, 2)[0, 1].tolist() == [2, 3, 6, 7]


def test_positions_have_unit_magnitude_zero_mean_and_differ() -> None:
    table = unit_positions(4, 64)
    torch.testing.assert_close(magnitude(table), torch.ones(16))
    torch.testing.assert_close(table.mean(-1), torch.zeros(16), atol=1e-6, rtol=0)
    assert torch.cdist(table, table).fill_diagonal_(9).min() > 1


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("learned_variance", [False, True])
def test_a_new_network_answers_zero(design: str, learned_variance: bool) -> None:
    model = build_transformer(small_architecture(design=DESIGNS[design], learned_variance=learned_variance), seed=0)
    answer = model(normal((4, 1, 8, 8), 0, 0, "x"), torch.zeros(4), torch.arange(4))
    assert answer.shape == (4, 1 + learned_variance, 8, 8)
    assert answer.abs().max() == 0


@pytest.mark.parametrize("design", DESIGNS)
def test_the_seed_alone_decides_the_weights(design: str) -> None:
    one, two, other = (build_transformer(small_architecture(design=DESIGNS[design]), seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.patch_embed.weight, other.patch_embed.weight)


def test_every_matrix_is_normalised() -> None:
    model = build_transformer(small_architecture(), seed=0)
    matrices = {id(p) for p in model.parameters() if p.ndim == 2}
    assert matrices == {id(w) for w in normalised_weights(model)}


def test_attention_ignores_the_order_of_tokens() -> None:
    attention = build_transformer(small_architecture(), seed=0).blocks[0].attention.branch
    x, order = normal((2, 16, 32), 0, 0, "x"), torch.randperm(16)
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order], rtol=1e-4, atol=1e-5)


def test_attention_ignores_the_magnitude_of_queries_and_keys() -> None:
    attention = Softmax().build(32, 2, DESIGNS["F"])
    torch.nn.init.normal_(attention.qkv.weight)
    torch.nn.init.normal_(attention.proj.weight)
    x = normal((2, 16, 32), 0, 0, "x")
    torch.testing.assert_close(attention(5 * x), attention(x), rtol=1e-4, atol=1e-4)


# Trainable parameters of DiT as published, counted from the public model: 4 latent channels, 1000 classes.
@pytest.mark.parametrize(
    ("size", "patch", "count"),
    [
        ("XS", 2, 7_632_928),
        ("S", 2, 32_865_056),
        ("S", 4, 32_920_448),
        ("B", 2, 130_315_808),
        ("B", 4, 130_426_496),
        ("L", 2, 457_840_672),
        ("XL", 2, 674_834_720),
    ],
)
def test_design_a_has_the_parameters_of_dit(size: str, patch: int, count: int) -> None:
    assert parameter_count(published(size, patch, "scale+shift+gate", "A")) == count


# Counts of the public code of arXiv 2505.19122, in millions, of 16×16×4 latents with 1000 classes.
@pytest.mark.parametrize(
    ("size", "patch", "modulation", "millions"),
    [
        ("XS", 2, "none", 5.118),
        ("XS", 2, "scale+shift+gate", 7.609),
        ("S", 4, "scale+shift+gate", 32.850),
        ("S", 4, "scale+rotation+gate", 31.007),
        ("S", 2, "rotation", 23.726),
        ("B", 4, "scale+shift+rotation+gate", 137.658),
    ],
)
def test_parameters_match_the_published_code(size: str, patch: int, modulation: str, millions: float) -> None:
    assert parameter_count(published(size, patch, modulation)) == pytest.approx(millions * 1e6, rel=1e-3)


def test_rotation_needs_five_percent_fewer_parameters_than_shift() -> None:
    shift, rotation = (parameter_count(published("S", 4, f"scale+{kind}+gate")) for kind in ("shift", "rotation"))
    assert 0.052 < 1 - rotation / shift < 0.058


def test_a_patch_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"patch 3 does not divide"):
        small_architecture(patch=3)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(InputError, match="heads do not divide"):
        small_architecture(heads=5)


def test_each_rung_of_the_ladder_changes_what_it_says() -> None:
    changed = {
        rung: {name for name in SWITCHES if getattr(DESIGNS[rung], name) != getattr(DESIGNS[before], name)}
        for before, rung in zip("ABCDE", "BCDEF", strict=True)
    }
    assert changed == {
        "B": {"cosine_attention"},
        "C": {"weight_normalization"},
        "D": {"forced_normalization"},
        "E": {"mp_residual", "mp_silu", "mp_embedding", "mp_positions", "layer_norm"},
        "F": {"renormalized"},
    }


def test_design_e_blends_streams_and_attends_as_published_and_f_brings_them_back() -> None:
    """A block without modulation, by hand: Eq. 88 of arXiv 2312.02696 with t = 0.3, cosine attention, SiLU/0.596."""
    x = normalize(normal((2, 16, 32), 0, 0, "x")) * 1.5
    for design in "EF":
        block = build_transformer(small_architecture("none", design=DESIGNS[design]), seed=0).blocks[0]
        back = normalize if design == "F" else torch.nn.Identity()
        attention, mlp = block.attention.branch, block.mlp.branch
        q, k, v = attention.qkv(x).reshape(2, 16, 3, 2, 16).permute(2, 0, 3, 1, 4)
        weights = (normalize(q) @ normalize(k).mT / 4).softmax(-1)
        y = back(attention.proj((weights @ v).transpose(1, 2).reshape(2, 16, 32)))
        stream = back((0.7 * x + 0.3 * y) / 0.58**0.5)
        branch = mlp.fc2(torch.nn.functional.silu(mlp.fc1(stream)) / 0.596)
        torch.testing.assert_close(
            block(x, torch.zeros(2, 32)), back((0.7 * stream + 0.3 * branch) / 0.58**0.5), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_long_skips_start_as_the_network_without_them(design: str, depth: int) -> None:
    plain, skipping = (
        build_transformer(small_architecture(depth=depth, design=DESIGNS[design], skips=skips), seed=0)
        for skips in (False, True)
    )
    count = parameter_count(plain.architecture)
    assert parameter_count(skipping.architecture) == count + depth // 2
    for network in (plain, skipping):
        for name, parameter in network.named_parameters():
            if not name.startswith("skips"):
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(name)))
    inputs = normal((2, 1, 8, 8), 0, 0, "x"), torch.zeros(2), torch.arange(2)
    torch.testing.assert_close(skipping(*inputs), plain(*inputs), rtol=1e-3, atol=1e-3)
    skipping(*inputs).square().sum().backward()
    assert all(gain.grad is not None and gain.grad != 0 for gain in skipping.skips.gains)


@pytest.mark.parametrize("design", ["A", "E", "F"])
def test_the_last_stream_kept_is_the_first_one_added(design: str) -> None:
    network = build_transformer(small_architecture("none", depth=5, design=DESIGNS[design], skips=True), seed=0)
    begun: list[torch.Tensor] = []
    for block in network.blocks:
        block.register_forward_pre_hook(lambda _block, given: begun.append(given[0]))
        block.register_forward_hook(lambda _block, given, _output: given[0] + 1)
    network.skips.gains[0].data.fill_(0.5)
    network.skips.gains[1].data.fill_(2.0)
    network(normal((2, 1, 8, 8), 0, 0, "x"), torch.zeros(2), torch.arange(2))
    back = normalize if design == "F" else torch.nn.Identity()
    divisors = (1.0, 1.0) if design == "A" else (5**0.5, 1.25**0.5)
    torch.testing.assert_close(begun[2], begun[1] + 1)
    torch.testing.assert_close(begun[3], back((begun[2] + 1 + 2.0 * begun[1]) / divisors[0]))
    torch.testing.assert_close(begun[4], back((begun[3] + 1 + 0.5 * begun[0]) / divisors[1]))


def test_plain_attention_feels_the_magnitude_of_queries_and_keys() -> None:
    x = normal((2, 16, 32), 0, 0, "x")
    for design, feels in (("A", True), ("B", False)):
        attention = Softmax().build(32, 2, DESIGNS[design])
        for layer in (attention.qkv, attention.proj):
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        assert torch.allclose(attention(5 * x), 5 * attention(x), rtol=1e-3, atol=1e-3) != feels


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("design", ["A", "E", "F"])
def test_every_switch_can_be_set_by_itself(design: str, switch: str) -> None:
    flipped = {switch: not getattr(DESIGNS[design], switch)}
    if switch == "weight_normalization" and design in "EF":
        flipped["forced_normalization"] = False
    if switch == "forced_normalization" and design == "A":
        flipped["weight_normalization"] = True
    if switch == "renormalized" and design == "A":
        flipped["mp_residual"] = True
    model = build_transformer(small_architecture(design=choose_design(design, flipped)), seed=0)
    model(normal((2, 1, 8, 8), 0, 0, "x"), torch.zeros(2), torch.arange(2)).square().sum().backward()


def test_forced_normalisation_of_weights_that_are_not_normalised_is_refused() -> None:
    with pytest.raises(InputError, match="forced weight normalisation"):
        choose_design("A", {"forced_normalization": True})


def test_bringing_back_plain_sums_is_refused() -> None:
    with pytest.raises(InputError, match="mp_residual: true"):
        choose_design("A", {"renormalized": True})


def test_a_switch_that_the_variant_sets_otherwise_is_refused() -> None:
    with pytest.raises(InputError, match="sets renormalized itself"):
        choose_design("F", {"renormalized": True}, "map-dit")
    assert choose_design("F", {"renormalized": False}, "map-dit") == choose_design("E", variant="map-dit")


@pytest.mark.parametrize(
    ("design", "sums", "brought_back"), [("A", True, True), ("E", True, False), ("F", False, False)]
)
def test_a_sum_is_brought_back_unless_its_design_leaves_it_as_it_is(
    design: str, sums: bool, brought_back: bool
) -> None:
    assert choose_design(design, {"mp_residual": sums}).renormalized is brought_back


def test_an_unknown_variant_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="map-dit"):
        choose_design("E", variant="mapdit")


def test_a_width_that_two_dimensions_cannot_share_is_refused() -> None:
    with pytest.raises(InputError, match="divisible by 4"):
        small_architecture(width=30, heads=3, modulation="rotation")
