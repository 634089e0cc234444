"""Tree-structured Parzen estimator (Bergstra et al., 2011)."""

from typing import TYPE_CHECKING

from sweeps.spec.search_algorithm import SEARCHES, SamplerOptions, SearchAlgorithm

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def build(options: SamplerOptions) -> "BaseSampler":
    """Optuna's sampler; with conditions, the axes that are active together are modelled together."""
    from optuna.samplers import TPESampler

    multivariate = True if options.conditional else None
    return TPESampler(seed=options.seed, n_startup_trials=1, multivariate=multivariate, group=options.conditional)


TPE = SEARCHES.register(
    SearchAlgorithm(
        name="tpe",
        doc="follows from the results: densities of the good and of the other points (Parzen estimators)",
        sampler=build,
        quasi_random_first=8,
    )
)
