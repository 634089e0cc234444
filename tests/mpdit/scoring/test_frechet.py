import numpy as np
import pytest
import scipy.linalg
import torch
from torch.utils.data import Dataset as TorchDataset

from mpdit.data.dataset import to_bytes
from mpdit.data.registry import load_dataset
from mpdit.randomness import normal
from mpdit.scoring import frechet as fidelity
from mpdit.scoring import intervals
from mpdit.scoring.extractors.registry import load_extractor
from mpdit.scoring.student_t import t_critical
from mpdit.scoring.torch_fidelity_adapter import register_with_torch_fidelity


def features(count: int, dimensions: int, seed: int) -> torch.Tensor:
    mix = normal((dimensions, dimensions), seed, 1, "mix") / dimensions**0.5
    return normal((count, dimensions), seed, 0, "features") @ mix + 0.1 * seed


def test_the_distance_of_gaussians_has_its_closed_form() -> None:
    generator = np.random.default_rng(0)
    a, b = (x @ x.T for x in generator.normal(size=(2, 6, 6)))
    mean_a, mean_b = generator.normal(size=(2, 6))
    root = scipy.linalg.sqrtm(a @ b).real
    wanted = np.sum((mean_a - mean_b) ** 2) + np.trace(a + b - 2 * root)
    assert fidelity.frechet_distance(mean_a, a, mean_b, b) == pytest.approx(wanted, rel=1e-9)


def test_the_distance_of_diagonal_gaussians_is_the_sum_over_axes() -> None:
    s, t = np.array([1.0, 2.0, 0.5]), np.array([2.0, 0.1, 3.0])
    wanted = np.sum((s - t) ** 2) + 3 * 0.5**2
    found = fidelity.frechet_distance(np.zeros(3), np.diag(s**2), np.full(3, 0.5), np.diag(t**2))
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("counts", [(300, 250), (300, 7), (5, 9), (2, 2)])
def test_the_distance_of_features_is_that_of_their_statistics_with_fewer_than_dimensions_too(
    counts: tuple[int, int],
) -> None:
    a, b = (features(count, 20, seed + 1) for seed, count in enumerate(counts))
    wanted = fidelity.distance(fidelity.statistics(a), fidelity.statistics(b))
    assert fidelity.distance_of_features(a, b) == pytest.approx(wanted, rel=1e-6)
    assert fidelity.distance_of_features(b, a) == pytest.approx(wanted, rel=1e-6)
    assert fidelity.distance_of_features(a, a) == pytest.approx(0, abs=1e-9)


def test_the_distance_is_zero_to_itself_and_symmetric() -> None:
    a, b = (fidelity.statistics(features(300, 20, seed)) for seed in (1, 2))
    assert fidelity.distance(a, a) == pytest.approx(0, abs=1e-9)
    assert fidelity.distance(a, b) == pytest.approx(fidelity.distance(b, a), rel=1e-9)


def theirs(a: fidelity.Statistics, b: fidelity.Statistics) -> float:
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    both = [{"mu": s.mean.numpy(), "sigma": s.covariance.numpy()} for s in (a, b)]
    return float(fid_statistics_to_metric(*both, verbose=False)["frechet_inception_distance"])


@pytest.mark.parametrize(("made", "real"), [(500, 500), (40, 500)], ids=["full rank", "fewer samples than features"])
def test_the_distance_is_torch_fidelitys(made: int, real: int) -> None:
    both = fidelity.statistics(features(made, 64, 1)), fidelity.statistics(features(real, 64, 2))
    assert fidelity.distance(*both) == pytest.approx(theirs(*both), rel=1e-6)


@pytest.mark.slow
def test_the_distance_of_2048_features_is_torch_fidelitys() -> None:
    made, real = (features(count, 96, seed) for count, seed in ((60, 1), (90, 2)))
    spread = normal((96, 2048), 0, 0, "spread") / 96**0.5
    both = fidelity.statistics(made @ spread), fidelity.statistics(real @ spread)  # both far from full rank
    exact = exact_distance(made.double() @ spread.double(), real.double() @ spread.double())
    assert fidelity.distance(*both) == pytest.approx(exact, rel=1e-6)


def exact_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """From the samples themselves: tr((Σ_aΣ_b)^½) is the nuclear norm of XᵀY/√((n−1)(m−1)), X and Y centred."""
    x, y = (part - part.mean(0) for part in (a, b))
    nuclear = torch.linalg.svdvals(x @ y.T).sum() / ((len(x) - 1) * (len(y) - 1)) ** 0.5
    traces = x.square().sum() / (len(x) - 1) + y.square().sum() / (len(y) - 1)
    return float((a.mean(0) - b.mean(0)).square().sum() + traces - 2 * nuclear)


def test_where_neither_has_full_rank_ours_is_the_exact_value_and_theirs_is_near_it() -> None:
    a, b = features(40, 64, 1), features(30, 64, 2)
    both = fidelity.statistics(a), fidelity.statistics(b)
    exact = exact_distance(a.double(), b.double())
    assert fidelity.distance(*both) == pytest.approx(exact, rel=1e-6)
    assert theirs(*both) == pytest.approx(exact, rel=1e-4)  # their zeros are the roots of rounding errors


class Images(TorchDataset):
    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def test_the_registered_extractor_gives_torch_fidelity_our_value() -> None:
    import torch_fidelity

    images = to_bytes(load_dataset("digits").images)
    real, made = images[:900], torch.randint(0, 256, (700, 1, 8, 8), dtype=torch.uint8)
    extractor = load_extractor("digits")
    ours = fidelity.distance(*(fidelity.statistics(extractor.features(part)) for part in (made, real)))
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(made),
        input2=Images(real),
        fid=True,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        feature_extractor=register_with_torch_fidelity("digits"),
    )["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_statistics_of_parts_add_up() -> None:
    x = features(100, 8, 1)
    parts, whole = [fidelity.statistics(part) for part in x.split(33)], fidelity.statistics(x)
    joined = parts[0] + parts[1] + parts[2] + parts[3]
    torch.testing.assert_close(joined.covariance, whole.covariance)
    torch.testing.assert_close(whole.covariance, torch.cov(x.double().T))
    torch.testing.assert_close((joined - parts[3]).mean, x[:99].double().mean(0))


def test_the_errors_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Distances of 300 fresh sets of 1,000 Gaussian samples: the 95 % interval holds their mean in 91–98 %."""
    reference = fidelity.statistics(features(20_000, 4, 3))
    found = [
        fidelity.left_out_distances(fidelity.folds_of(normal((1000, 4), seed, 0, "again")), reference)
        for seed in range(300)
    ]
    values = np.array([value for value, _ in found])
    errors = np.array([intervals.jackknife_error(left_out) for _, left_out in found])
    assert errors.mean() == pytest.approx(values.std(), rel=0.15)
    held = np.abs(values - values.mean()) <= t_critical(intervals.FOLDS - 1) * errors
    assert 0.91 <= held.mean() <= 0.98


def test_the_error_of_a_paired_difference_is_that_of_the_difference() -> None:
    """Two sets made of the same noise differ far more surely than either of their distances is known."""
    reference = fidelity.statistics(features(20_000, 4, 3))
    differences, told, single = [], [], []
    for seed in range(120):
        noise = normal((1000, 4), seed, 0, "pair")
        one, other = (
            fidelity.left_out_distances(fidelity.folds_of(x), reference) for x in (noise, 1.05 * noise + 0.02)
        )
        differences.append(other[0] - one[0])
        told.append(intervals.jackknife_error(np.subtract(other[1], one[1])))
        single.append(intervals.jackknife_error(one[1]))
    assert np.mean(told) == pytest.approx(np.std(differences), rel=0.25)
    assert np.mean(told) < np.mean(single) / 2


def test_the_noise_floor_is_what_fresh_samples_of_the_truth_score() -> None:
    truth = normal((1800, 16), 0, 0, "truth")
    scores = []
    for seed in range(1, 40):
        fresh = normal((2000, 16), seed, 0, "fresh")
        scores.append(fidelity.distance(fidelity.statistics(fresh), fidelity.statistics(truth)))
    # one draw of the truth gives one floor; over such draws both have the same expectation
    slopes = [fidelity.floor_slope(normal((1800, 16), seed, 0, "truth")) for seed in range(5)]
    floors = [fidelity.noise_floor(slope, 2000, 1800) for slope in slopes]
    assert np.mean(floors) == pytest.approx(np.mean(scores), rel=0.2)
