import pytest
import torch

from mpdit.errors import BadInput
from mpdit.layers import magnitude, normalised_weights
from mpdit.randomness import normal
from mpdit.transformer import (
    SIZES,
    Architecture,
    CosineAttention,
    build_transformer,
    parameter_count,
    patchify,
    sincos_positions,
    unpatchify,
)
from tests.conftest import small_architecture


def published(size: str, patch: int, modulation: str) -> Architecture:
    depth, width, heads = SIZES[size]
    return Architecture(depth, width, heads, patch, modulation, channels=4, resolution=16, classes=1000)


def test_patchify_is_undone_by_unpatchify() -> None:
    images = normal((3, 2, 8, 8), 0, 0, "images")
    torch.testing.assert_close(unpatchify(patchify(images, 2), 2, 2), images)


def test_patchify_keeps_a_patch_together() -> None:
    images = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert patchify(images, 2)[0, 1].tolist() == [2, 3, 6, 7]


def test_positions_have_unit_magnitude_zero_mean_and_differ() -> None:
    table = sincos_positions(4, 64)
    torch.testing.assert_close(magnitude(table), torch.ones(16))
    torch.testing.assert_close(table.mean(-1), torch.zeros(16), atol=1e-6, rtol=0)
    assert torch.cdist(table, table).fill_diagonal_(9).min() > 1


def test_a_new_network_answers_zero() -> None:
    model = build_transformer(small_architecture(), seed=0)
    assert model(normal((4, 1, 8, 8), 0, 0, "x"), torch.zeros(4), torch.arange(4)).abs().max() == 0


def test_the_seed_alone_decides_the_weights() -> None:
    one, two, other = (build_transformer(small_architecture(), seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.patches.weight, other.patches.weight)


def test_every_matrix_is_normalised() -> None:
    model = build_transformer(small_architecture(), seed=0)
    matrices = {id(p) for p in model.parameters() if p.ndim == 2}
    assert matrices == {id(w) for w in normalised_weights(model)}


def test_attention_ignores_the_order_of_tokens() -> None:
    attention = build_transformer(small_architecture(), seed=0).blocks[0].attention.branch
    x, order = normal((2, 16, 32), 0, 0, "x"), torch.randperm(16)
    torch.testing.assert_close(attention(x[:, order]), attention(x)[:, order], rtol=1e-4, atol=1e-5)


def test_attention_ignores_the_magnitude_of_queries_and_keys() -> None:
    attention = CosineAttention(32, 2)
    torch.nn.init.normal_(attention.qkv.weight)
    torch.nn.init.normal_(attention.out.weight)
    x = normal((2, 16, 32), 0, 0, "x")
    torch.testing.assert_close(attention(5 * x), attention(x), rtol=1e-4, atol=1e-4)


# Reference counts, in millions, of 16×16×4 latents with 1000 classes and learned variance (model.md of the design).
# Ours has no learned variance yet: 2·4·patch² outputs there, 4·patch² here.
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
    architecture = published(size, patch, modulation)
    learned_variance = 4 * patch**2 * architecture.width
    assert parameter_count(architecture) + learned_variance == pytest.approx(millions * 1e6, rel=1e-3)


def test_rotation_needs_five_percent_fewer_parameters_than_shift() -> None:
    shift, rotation = (parameter_count(published("S", 4, f"scale+{kind}+gate")) for kind in ("shift", "rotation"))
    assert 0.052 < 1 - rotation / shift < 0.058


def test_a_patch_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(BadInput, match=r"patch 3 does not divide"):
        small_architecture(patch=3)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(BadInput, match="heads do not divide"):
        small_architecture(heads=5)
