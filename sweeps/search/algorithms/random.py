"""Points drawn independently."""

from sweeps.spec.search_algorithm import SEARCHES, SearchAlgorithm

RANDOM = SEARCHES.register(
    SearchAlgorithm(
        name="random",
        doc="points drawn independently from the search's seed; the same ones at every start",
        points=lambda space, count, seed: space.random(count, seed),
    )
)
