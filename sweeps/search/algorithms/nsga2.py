"""Non-dominated sorting genetic algorithm II (Deb et al., 2002)."""

from typing import TYPE_CHECKING

from sweeps.spec.search_algorithm import SEARCHES, SamplerOptions, SearchAlgorithm

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def build(options: SamplerOptions) -> "BaseSampler":
    """Optuna's sampler."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=options.seed, population_size=options.generation)


NSGA2 = SEARCHES.register(
    SearchAlgorithm(
        name="nsga2",
        doc="follows from the results, by generations; for several objectives",
        sampler=build,
        keeps_state=True,
    )
)
