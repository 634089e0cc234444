import pytest
import torch

from mpdit.datasets import load_dataset, to_bytes
from mpdit.errors import BadInput


def test_the_digits_are_the_real_ones() -> None:
    digits = load_dataset("digits")
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.images.min() == -1
    assert digits.images.max() == 1
    assert digits.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_fingerprint_never_changes() -> None:
    assert load_dataset("digits").fingerprint.startswith("sha256:314b97e8b73b")


def test_bytes_are_rounded_and_clamped() -> None:
    assert to_bytes(torch.tensor([-2.0, -1.0, 0.0, 0.003, 1.0, 7.0])).tolist() == [0, 0, 128, 128, 255, 255]


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(BadInput, match="digits"):
        load_dataset("digit")
