"""CLIP's image tower with made-up weights: PyTorch's own transformer of the same weights gives the same."""

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mpdit.errors import InputError
from mpdit.scoring.extractors.clip import ClipVision, read_clip
from mpdit.scoring.extractors.registry import load_extractor


class Whole(nn.Module):
    """As the files hold it: the image tower beside a text tower."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = ClipVision(width=128, depth=2, patch=8, grid=3, dimensions=16)
        self.text = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.visual(x)


@pytest.fixture
def whole() -> Whole:
    network = Whole()
    drawn = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=drawn)
    return network.eval()


def images(count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_the_published_file_and_open_clip_s_give_one_network(whole: Whole, tmp_path: Path) -> None:
    weights = {name: tensor.contiguous() for name, tensor in whole.state_dict().items()}
    save_file(weights, tmp_path / "open_clip.safetensors")
    torch.save(weights, tmp_path / "tensors.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.trace(whole, images()).save(str(tmp_path / "script.pt"))
        read = [read_clip(tmp_path / name) for name in ("open_clip.safetensors", "tensors.pt", "script.pt")]
    for network in read:
        torch.testing.assert_close(network.eval()(images()), whole(images()))


def test_its_features_have_the_file_s_dimensions_and_a_name_of_their_own(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({name: tensor.contiguous() for name, tensor in whole.state_dict().items()}, tmp_path / "a.safetensors")
    monkeypatch.setenv("MPDIT_CLIP_WEIGHTS", str(tmp_path / "a.safetensors"))
    found = load_extractor("clip")
    assert found.features(images()).shape == (3, 16)
    assert found.name.startswith("clip-")
    monkeypatch.setenv("MPDIT_CLIP_WEIGHTS", str(tmp_path / "none.pt"))
    with pytest.raises(InputError, match=r"weights of the clip features are missing[\s\S]*ViT-L-14-336px\.pt"):
        load_extractor("clip")
