import numpy as np
import pytest
import scipy.linalg
import torch
from torch.utils.data import Dataset as TorchDataset

from mpdit import fidelity
from mpdit.datasets import load_dataset, to_bytes
from mpdit.errors import BadInput
from mpdit.randomness import normal


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


def test_the_distance_is_zero_to_itself_and_symmetric() -> None:
    a, b = (fidelity.statistics(features(300, 20, seed)) for seed in (1, 2))
    assert fidelity.distance(a, a) == pytest.approx(0, abs=1e-9)
    assert fidelity.distance(a, b) == pytest.approx(fidelity.distance(b, a), rel=1e-9)


@pytest.mark.parametrize(("count", "dimensions"), [(500, 64), (40, 64)])
def test_the_distance_is_torch_fidelitys(count: int, dimensions: int) -> None:
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    both = [fidelity.statistics(features(count, dimensions, seed)) for seed in (1, 2)]
    theirs = [{"mu": s.mean.numpy(), "sigma": s.covariance.numpy()} for s in both]
    wanted = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    tolerance = 1e-6 if count > dimensions else 1e-4  # theirs loses digits where the covariance has no full rank
    assert fidelity.distance(*both) == pytest.approx(wanted, rel=tolerance)


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
    extractor = fidelity.load_extractor("digits")
    ours = fidelity.distance(*(fidelity.statistics(extractor.features(part)) for part in (made, real)))
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(made),
        input2=Images(real),
        fid=True,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        feature_extractor=fidelity.register_with_torch_fidelity("digits"),
    )["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_statistics_of_parts_add_up() -> None:
    x = features(100, 8, 1)
    parts, whole = [fidelity.statistics(part) for part in x.split(33)], fidelity.statistics(x)
    joined = parts[0] + parts[1] + parts[2] + parts[3]
    torch.testing.assert_close(joined.covariance, whole.covariance)
    torch.testing.assert_close(whole.covariance, torch.cov(x.double().T))
    torch.testing.assert_close((joined - parts[3]).mean, x[:99].double().mean(0))


def test_the_error_is_that_of_repeated_sampling() -> None:
    reference = fidelity.statistics(features(20_000, 4, 3))
    repeated, told = [], []
    for seed in range(60):
        x = normal((1000, 4), seed, 0, "again")
        value, error = fidelity.distance_with_error([fidelity.statistics(c) for c in x.chunk(10)], reference)
        repeated.append(value)
        told.append(error)
    assert np.mean(told) == pytest.approx(np.std(repeated), rel=0.35)


def test_the_noise_floor_is_what_fresh_samples_of_the_truth_score() -> None:
    truth = normal((1800, 16), 0, 0, "truth")
    scores = []
    for seed in range(1, 40):
        fresh = normal((2000, 16), seed, 0, "fresh")
        scores.append(fidelity.distance(fidelity.statistics(fresh), fidelity.statistics(truth)))
    # one draw of the truth gives one floor; over such draws both have the same expectation
    floors = [fidelity.noise_floor(normal((1800, 16), seed, 0, "truth"), 2000, splits=5) for seed in range(10)]
    assert np.mean(floors) == pytest.approx(np.mean(scores), rel=0.2)


def test_the_classifier_names_digits_it_never_saw() -> None:
    from pipelines.extractor import accuracy, split

    dataset, extractor = load_dataset("digits"), fidelity.load_extractor("digits")
    held_out = split(len(dataset))[1]
    found = accuracy(extractor.network, to_bytes(dataset.images[held_out]), dataset.labels[held_out])
    card = fidelity.extractor_card("digits")
    assert found >= 0.97
    assert found == pytest.approx(card["held_out_accuracy"], abs=1e-4)
    assert len(held_out) == card["held_out_images"]


def test_the_shipped_weights_are_small() -> None:
    assert (fidelity.WEIGHTS / "digits.safetensors").stat().st_size <= 300_000


def test_changed_weights_are_refused(tmp_path, monkeypatch) -> None:
    for name in ("digits.safetensors", "digits.json"):
        (tmp_path / name).write_bytes((fidelity.WEIGHTS / name).read_bytes())
    with (tmp_path / "digits.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00")
    monkeypatch.setattr(fidelity, "WEIGHTS", tmp_path)
    fidelity.load_extractor.cache_clear()
    with pytest.raises(BadInput, match="is damaged"):
        fidelity.load_extractor("digits")
    fidelity.load_extractor.cache_clear()


@pytest.mark.parametrize(
    ("samples", "name"), [(2000, "fd_digits_2k"), (10_000, "fd_digits_10k"), (1797, "fd_digits_1797")]
)
def test_a_metrics_name_says_its_count(samples: int, name: str) -> None:
    assert fidelity.metric_name("digits", samples) == name


def test_an_unknown_extractor_is_refused() -> None:
    with pytest.raises(BadInput, match="digits"):
        fidelity.load_extractor("digit")
