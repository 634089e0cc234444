import pytest
import torch

from mpdit.data.dataset import to_bytes
from mpdit.data.registry import load_dataset
from mpdit.data.shapes import DRAWN, NAMES, OUTLINES, attributes, colour, render, scene
from mpdit.errors import InputError


def test_an_index_is_the_same_picture_alone_and_among_others() -> None:
    together = render(torch.tensor([12, 907, 3, 45, 12]), 24)
    assert torch.equal(together[0], together[4])
    for place, index in enumerate((12, 907, 3, 45)):
        assert torch.equal(render(torch.tensor([index]), 24)[0], together[place])


def test_the_pictures_never_change() -> None:
    picture = render(torch.tensor([14]), 8)[0, 1].tolist()
    assert picture[4] == [58, 58, 58, 104, 137, 117, 96, 58]


def test_a_larger_picture_shows_the_same_scene() -> None:
    small, large = (render(torch.arange(40), side).float() for side in (32, 128))
    averaged = torch.nn.functional.avg_pool2d(large, 4)
    assert (averaged - small).abs().mean() < 1.5
    assert (averaged - small).abs().flatten(1).mean(1).max() < 4


def test_the_attributes_are_uniform_and_independent() -> None:
    drawn = torch.stack(list(attributes(torch.arange(20_000)).values()))
    assert len(drawn) == len(DRAWN)
    assert (drawn >= 0).all()
    assert (drawn < 1).all()
    torch.testing.assert_close(drawn.mean(1), torch.full((len(DRAWN),), 0.5).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.std(1), torch.full((len(DRAWN),), 12**-0.5).double(), atol=0.005, rtol=0)
    assert (torch.corrcoef(drawn) - torch.eye(len(DRAWN))).abs().max() < 0.03


@pytest.mark.parametrize("name", NAMES)
def test_a_shape_lies_in_its_circle_and_around_its_middle(name: str) -> None:
    grid = torch.linspace(-1.5, 1.5, 301)
    x, y = grid[None, :].expand(301, 301), grid[:, None].expand(301, 301)
    inside = OUTLINES[name](x, y) < 0
    assert 0.01 < inside.double().mean() < 0.4
    assert (x[inside] ** 2 + y[inside] ** 2).max() <= 1.0001


def test_the_area_of_a_disc_is_drawn_to_a_fraction_of_a_pixel() -> None:
    discs = torch.arange(0, 2000, 10)
    seen, pictures = scene(discs), render(discs, 64).double() / 255
    shape, ground = ((part * 255).round() / 255 for part in (seen.shape, seen.ground))  # as their pixels show them
    contrast = shape - ground
    covered = ((pictures - ground[..., None, None]) * contrast[..., None, None]).sum((1, 2, 3)) / (contrast**2).sum(1)
    radius = seen.size * 32
    assert ((covered - torch.pi * radius**2).abs() / (2 * torch.pi * radius)).max() < 0.05


def test_colours_are_those_of_the_wheel() -> None:
    hue = torch.tensor([0, 1 / 3, 2 / 3, 1 / 6, 0.4], dtype=torch.float64)
    one = torch.ones(5, dtype=torch.float64)
    saturation = torch.tensor([1, 1, 1, 1, 0], dtype=torch.float64)
    wanted = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]]
    torch.testing.assert_close(colour(hue, saturation, one), torch.tensor(wanted).double())


def test_the_recorded_deviation_is_that_of_the_pixels() -> None:
    for resolution in (16, 64):
        found = load_dataset("shapes", resolution=resolution, count=1000).images.std()
        assert float(found) == pytest.approx(load_dataset("shapes").std, rel=0.04)


def test_a_set_is_the_first_pictures_in_turn_of_classes() -> None:
    small, large = load_dataset("shapes", resolution=16, count=40), load_dataset("shapes", resolution=16, count=60)
    assert small.labels.bincount().tolist() == [4] * 10
    index = torch.tensor([39, 0, 5])
    assert torch.equal(small.pixels(index), large.pixels(index))
    assert torch.equal(small.pixels(index), render(index, 16))
    assert torch.equal(small.to("cpu").pixels(index), render(index, 16))
    assert torch.equal(to_bytes(small.plain(index)), render(index, 16))
    assert len({small.fingerprint, large.fingerprint, load_dataset("shapes").fingerprint}) == 3


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="8 to 1024"):
        load_dataset("shapes", resolution=4)
    with pytest.raises(InputError, match="10 or more"):
        load_dataset("shapes", count=3)
    with pytest.raises(InputError, match="no path"):
        load_dataset("shapes", path="x")


def test_the_features_name_shapes_that_they_never_saw_at_any_size() -> None:
    from mpdit.scoring.extractors.registry import load_extractor
    from mpdit.scoring.small_classifier import WEIGHTS, extractor_card

    extractor, card = load_extractor("shapes"), extractor_card("shapes")
    index = torch.arange(10**6, 10**6 + 500)
    assert extractor.logits is not None
    for resolution, least in ((32, 0.97), (64, 0.95), (128, 0.95), (24, 0.85)):
        named = extractor.logits(extractor.features(render(index, resolution))).argmax(-1)
        assert (named == index % 10).double().mean() >= least, resolution
    assert card["held_out_accuracy"] >= 0.98
    assert min(card["told_of_place_size_colours"]) >= 0.7
    assert (WEIGHTS / "shapes.safetensors").stat().st_size <= 600_000
