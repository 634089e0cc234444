"""References of others, in ADM's format: what they give, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpdit.data.registry import load_dataset
from mpdit.errors import InputError
from mpdit.scoring.extractors.registry import load_extractor
from mpdit.scoring.frechet import distance, frechet_distance, metric_name, statistics
from mpdit.scoring.reference_file import file_hash, read_reference

SHAPE = (1, 8, 8)


def digits(count: int) -> torch.Tensor:
    return load_dataset("digits").pixels(torch.arange(count))


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_statistics_give_the_distance_of_their_mean_and_covariance(tmp_path: Path) -> None:
    extractor = load_extractor("digits")
    real, fake = (statistics(extractor.features(images)) for images in (digits(1797), digits(500).flip(-1)))
    mean, covariance = real.mean.numpy(), real.covariance.numpy()
    for kept in (np.float64, np.float32):
        file = saved(tmp_path / "mu.npz", mu=mean.astype(kept), sigma=covariance.astype(kept))
        sums, count = read_reference(file, extractor, SHAPE)
        assert count is None
        wanted = frechet_distance(fake.mean, fake.covariance, mean, covariance)
        assert distance(fake, sums) == pytest.approx(wanted, rel=1e-4)


def test_images_give_the_statistics_of_their_features(tmp_path: Path) -> None:
    extractor, images = load_extractor("digits"), digits(700)
    wanted = statistics(extractor.features(images))
    for others in ({}, {"mu": np.zeros(2048), "sigma": np.eye(2048)}):  # Inception's beside them, as ADM has
        file = saved(tmp_path / "images.npz", arr_0=images.permute(0, 2, 3, 1).numpy(), **others)
        sums, count = read_reference(file, extractor, SHAPE)
        assert count == 700
        torch.testing.assert_close(sums.mean, wanted.mean)
        torch.testing.assert_close(sums.covariance, wanted.covariance)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"mu": np.array([{}, {}], object), "sigma": np.eye(2)}, "pickled content, which may run code"),
        ({"mu": np.zeros(2048), "sigma": np.eye(2048)}, r"no reference for the features of 'digits'[\s\S]*2,048 feat"),
        ({"mu": np.zeros(64), "sigma": np.eye(63)}, "no mean and covariance"),
        ({"mu": np.zeros(64), "sigma": np.full((64, 64), np.nan)}, "not finite"),
        ({"mu": np.zeros(64)}, "neither mu and sigma nor arr_0"),
        (
            {"arr_0": np.zeros((4, 16, 16, 1), np.uint8)},
            r"another size[\s\S]*\(4, 16, 16, 1\)[\s\S]*\(count, 8, 8, 1\)",
        ),
        ({"arr_0": np.zeros((4, 8, 8, 3), np.uint8)}, "another size"),
        ({"arr_0": np.zeros((4, 8, 8, 1), np.float32)}, "another size"),
        ({"arr_0": np.zeros((0, 8, 8, 1), np.uint8)}, "another size"),
        ({}, "neither mu and sigma nor arr_0"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    file = saved(tmp_path / "reference.npz", **arrays)
    with pytest.raises(InputError, match=says):
        read_reference(file, load_extractor("digits"), SHAPE)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn", b"\x80\x04\x95."])
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "reference.npz"
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a reference"):
        read_reference(file, load_extractor("digits"), SHAPE)


def test_a_damaged_or_missing_file_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path / "reference.npz", mu=np.zeros(64), sigma=np.eye(64))
    content = bytearray(file.read_bytes())
    content[2000] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a reference"):
        read_reference(file, load_extractor("digits"), SHAPE)
    with pytest.raises(InputError, match="there is no reference at"):
        file_hash(tmp_path / "none.npz")


def test_the_spatial_distance_has_the_name_of_the_literature() -> None:
    assert metric_name("inception_spatial", 50_000) == "sfid_50k"
    assert metric_name("inception_spatial", 2000) == "fd_inception_spatial_2k"
