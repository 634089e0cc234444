"""The Fréchet distance in Inception's 2,048 dimensions, against torch-fidelity's: minutes of general eigenvalues."""

import pytest

from mpdit.randomness import normal
from mpdit.scoring import frechet as fidelity
from tests.mpdit.scoring.test_frechet import theirs

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def statistics(count: int, seed: int) -> fidelity.Statistics:
    mix = normal((2048, 2048), 7, 0, "mix") / 2048**0.5
    return fidelity.statistics(normal((count, 2048), seed, 0, "features") @ mix + 0.1 * seed)


@pytest.mark.parametrize(
    ("made", "real"), [(3000, 3000), (500, 3000)], ids=["full rank", "fewer samples than features"]
)
def test_the_distance_of_2048_features_is_torch_fidelitys(made: int, real: int) -> None:
    both = statistics(made, 1), statistics(real, 2)
    assert fidelity.distance(*both) == pytest.approx(theirs(*both), rel=1e-6)
