"""What suits a data set, in closed form."""

import pytest

from pipelines.known_facts import DatasetFacts
from sweeps.spec.template import FEWEST_STEPS, MOST_STEPS, _batch, _patch, _steps


def facts(resolution: int, is_pixels: bool = True) -> DatasetFacts:
    return DatasetFacts("x", 1000, 2, 3, resolution, 0.5, "f", is_pixels)


@pytest.mark.parametrize(
    ("resolution", "is_pixels", "patch"),
    [(8, True, 2), (16, True, 2), (32, True, 4), (64, True, 8), (32, False, 2), (64, False, 4)],
)
def test_the_patch_is_the_usual_one_at_usual_sizes(resolution: int, is_pixels: bool, patch: int) -> None:
    assert _patch(facts(resolution, is_pixels)) == patch


@pytest.mark.parametrize("resolution", range(1, 130))
def test_the_patch_divides_every_resolution_and_leaves_several_tokens(resolution: int) -> None:
    patch = _patch(facts(resolution))
    assert resolution % patch == 0
    assert resolution // patch >= min(2, resolution)


@pytest.mark.parametrize("count", [8, 127, 128, 1797, 50_000, 10**7])
def test_steps_and_batch_follow_the_number_of_images(count: int) -> None:
    assert FEWEST_STEPS <= _steps(count) <= MOST_STEPS
    assert _batch(count) <= count < 2 * _batch(count)
