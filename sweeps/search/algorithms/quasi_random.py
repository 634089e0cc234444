"""Points of a scrambled Sobol sequence."""

from sweeps.spec.search_algorithm import SEARCHES, SearchAlgorithm

QUASI_RANDOM = SEARCHES.register(
    SearchAlgorithm(
        name="quasi_random",
        doc="points of a scrambled Sobol sequence, which leave fewer gaps; the same ones at every start",
        points=lambda space, count, seed: space.quasi_random(count, seed),
    )
)
