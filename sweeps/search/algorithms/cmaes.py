"""Covariance matrix adaptation evolution strategy (Hansen, 2016)."""

from typing import TYPE_CHECKING

from sweeps.spec.search_algorithm import SEARCHES, SamplerOptions, SearchAlgorithm

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def build(options: SamplerOptions) -> "BaseSampler":
    """Optuna's sampler."""
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=options.seed, n_startup_trials=1, popsize=options.generation)


CMAES = SEARCHES.register(
    SearchAlgorithm(
        name="cmaes",
        doc="follows from the results: an evolution strategy for two or more axes of numbers",
        sampler=build,
        keeps_state=True,
        takes_conditions=False,
        takes_words=False,
        takes_several_objectives=False,
        least_axes=2,
        requires=("cmaes", "cma"),
    )
)
