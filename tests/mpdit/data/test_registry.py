import pytest
import torch

from mpdit.data.dataset import held_near, to_bytes
from mpdit.data.registry import load_dataset
from mpdit.errors import InputError
from mpdit.randomness import Draws


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
    with pytest.raises(InputError, match="digits"):
        load_dataset("digit")


def test_a_set_is_held_on_a_gpu_that_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    digits, moved = load_dataset("digits"), []
    monkeypatch.setattr(type(digits), "to", lambda self, device: moved.append(device) or self)  # no GPU here
    for free, held in ((4 * 1797 * 64 * 4, 1), (1797 * 64 * 4, 1)):
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda _device, free=free: (free, free))
        assert held_near(digits, torch.device("cuda", 0)) is digits
        assert len(moved) == held
    assert held_near(digits, torch.device("cpu")) is digits


def test_a_set_held_elsewhere_gives_the_same_batches() -> None:
    digits = load_dataset("digits")
    index, draws = torch.tensor([5, 3, 1700]), Draws(0, 1, 3, slice(None))
    assert torch.equal(digits.to("cpu").batch(index, draws), digits.batch(index, draws))
    assert torch.equal(digits.to("cpu").plain(index), digits.images[index])
