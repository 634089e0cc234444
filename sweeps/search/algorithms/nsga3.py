"""Non-dominated sorting genetic algorithm III (Deb and Jain, 2014)."""

from typing import TYPE_CHECKING

from sweeps.spec.search_algorithm import SEARCHES, SamplerOptions, SearchAlgorithm

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def build(options: SamplerOptions) -> "BaseSampler":
    """Optuna's sampler."""
    from optuna.samplers import NSGAIIISampler

    return NSGAIIISampler(seed=options.seed, population_size=options.generation)


NSGA3 = SEARCHES.register(
    SearchAlgorithm(
        name="nsga3",
        doc="nsga2 with reference directions, for three objectives and more",
        sampler=build,
        keeps_state=True,
    )
)
