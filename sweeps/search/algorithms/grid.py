"""Every combination of the listed values."""

from sweeps.spec.search_algorithm import SEARCHES, SearchAlgorithm

GRID = SEARCHES.register(
    SearchAlgorithm(
        name="grid",
        doc="every combination of the lists",
        points=lambda space, count, seed: space.grid(),
        exhaustive=True,
    )
)
