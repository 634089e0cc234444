"""What every search algorithm declares about itself; the algorithms are the modules of sweeps/search/algorithms."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mpdit.registry import Registry
from sweeps.spec.space import Point, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

LARGEST_GENERATION = 16  # points of an evolutionary algorithm's generation, or a quarter of all where that is less


@dataclass(frozen=True)
class SamplerOptions:
    """What an Optuna sampler is built from.

    points: how many the search will try. conditional: whether an axis has a condition (`when`).
    """

    seed: int
    points: int
    conditional: bool

    @property
    def generation(self) -> int:
        """How many points a generation of an evolutionary algorithm has."""
        return max(4, min(LARGEST_GENERATION, self.points // 4))


@dataclass(frozen=True, kw_only=True)
class SearchAlgorithm:
    """A way to choose the points of a sweep.

    Either all points are known at the start (`points`), or each follows from the results so far (`sampler`).

    Args:
        points: Makes the points from the space, their number and the search's seed.
        sampler: Builds the Optuna sampler that suggests the next point.
        exhaustive: Whether it tries every combination, so that it takes lists only and no number of points.
        keeps_state: Whether the sampler has a state of its own, which is rebuilt by asking for every past point again.
        quasi_random_first: At most how many quasi-random points come before the first one that is learnt; no more than
            a quarter of all.
        takes_conditions: Whether an axis may have a condition (`when`).
        takes_words: Whether an axis may have values that are not numbers.
        takes_several_objectives: Whether it can follow more than one objective.
        least_axes: How many searched axes it needs.
        requires: The module that must be installed, and the extra of mpdit that installs it.
    """

    name: str
    doc: str
    points: Callable[[Space, int, int], list[Point]] | None = None
    sampler: "Callable[[SamplerOptions], BaseSampler] | None" = None
    exhaustive: bool = False
    keeps_state: bool = False
    quasi_random_first: int = 0
    takes_conditions: bool = True
    takes_words: bool = True
    takes_several_objectives: bool = True
    least_axes: int = 1
    requires: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if (self.points is None) == (self.sampler is None):
            raise ValueError(f"search algorithm {self.name!r} needs one of points and sampler")

    @property
    def learns(self) -> bool:
        """Whether its points follow from results."""
        return self.sampler is not None

    @property
    def is_installed(self) -> bool:
        """Whether the module that it needs is there."""
        return self.requires is None or find_spec(self.requires[0]) is not None


SEARCHES: Registry[SearchAlgorithm] = Registry("search algorithm", "sweeps.search.algorithms")
