"""Bayesian optimisation with a Gaussian process."""

from typing import TYPE_CHECKING

from sweeps.spec.search_algorithm import SEARCHES, SamplerOptions, SearchAlgorithm

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def build(options: SamplerOptions) -> "BaseSampler":
    """Optuna's sampler."""
    from optuna.samplers import GPSampler

    return GPSampler(seed=options.seed, n_startup_trials=1)


GP = SEARCHES.register(
    SearchAlgorithm(
        name="gp",
        doc="follows from the results: a Gaussian process; slower to suggest than tpe",
        sampler=build,
        quasi_random_first=8,
        takes_conditions=False,
    )
)
