"""Latents from a tiny VAE with random weights: what is stored, what is drawn, what is refused."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mpdit.data import latents
from mpdit.data.prepared_images import ImageWriter, load_image_folder
from mpdit.data.registry import load_dataset
from mpdit.errors import InputError
from mpdit.randomness import Draws
from pipelines.data.encode import Encoding, make_latents
from pipelines.data.prepare import prepare


def tiny_vae(folder: Path) -> Path:
    """16×16 pixels to 3 channels of 8×8; diffusers' own class, with weights that mean nothing."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=3,
            norm_num_groups=4,
        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 prepared pictures in three classes."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(30):
        folder = root / "raw" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    prepare(str(root / "raw"), root / "set", 16)
    return root / "set"


def encoded(images: Path, vae: Path, output: Path, progress: Any = None, **options: object) -> latents.LatentSet:
    how = Encoding(**{"dtype": "fp32", **options})  # type: ignore[arg-type]
    return make_latents(str(images), output, str(vae), how, progress)


@pytest.fixture(scope="module")
def made(images: Path, vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("latents") / "set"
    encoded(images, vae, output)
    return output


def test_what_is_stored_is_the_vaes_posterior(images: Path, vae: Path, made: Path) -> None:
    pixels = load_image_folder(str(images), flips=False)
    posterior = latents.load_vae(str(vae)).encode(pixels.images).latent_dist
    data, record = load_dataset("latents", path=str(made)), latents.read_latent_record(made)
    stored = data.read(torch.arange(30))[0]
    torch.testing.assert_close(stored[:, 0], posterior.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(stored[:, 1], posterior.std, atol=1e-5, rtol=1e-5)
    mixture = (posterior.std**2).mean((0, 2, 3)) + posterior.mean.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(torch.tensor(record.std), mixture.sqrt(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.tensor(record.mean), posterior.mean.mean((0, 2, 3)), atol=1e-5, rtol=1e-5)
    assert (data.channels, data.resolution, data.classes, data.std) == (3, 8, 3, 1.0)
    assert torch.equal(data.labels, pixels.labels)


def test_training_draws_from_the_posterior(made: Path) -> None:
    data, record = load_dataset("latents", path=str(made)), latents.read_latent_record(made)
    index = torch.arange(30).repeat(100)
    values = data.batch(index, Draws(0, 3, 3000, slice(None)))
    torch.testing.assert_close(values.mean((0, 2, 3)), torch.zeros(3), atol=0.02, rtol=0)
    torch.testing.assert_close(values.std((0, 2, 3)), torch.ones(3), atol=0.02, rtol=0)
    of_one = values[index == 7]
    mean, std = data.read(torch.tensor([7]))[0][0]
    scale = torch.tensor(record.std).reshape(3, 1, 1)
    torch.testing.assert_close(of_one.std(0), std / scale, rtol=0.45, atol=0.05)
    torch.testing.assert_close(
        data.plain(torch.tensor([7]))[0] * scale, mean - torch.tensor(record.mean).reshape(3, 1, 1)
    )
    assert torch.equal(values[10:20], data.batch(index[10:20], Draws(0, 3, 3000, slice(10, 20))))
    assert not torch.equal(values, data.batch(index, Draws(0, 4, 3000, slice(None))))


def test_samples_are_decoded_and_measured_against_the_images(images: Path, vae: Path, made: Path) -> None:
    data, pixels = load_dataset("latents", path=str(made)), load_image_folder(str(images), flips=False)
    index = torch.arange(30)
    assert torch.equal(data.pixels(index), pixels.pixels(index))
    coder = latents.load_vae(str(vae))
    wanted = coder.decode(data.read(index)[0][:, 0]).sample.clamp(-1, 1)
    torch.testing.assert_close(data.to_pixels(data.plain(index)), wanted, atol=1e-4, rtol=0)


def test_half_the_bytes_hold_nearly_the_same(images: Path, vae: Path, made: Path, tmp_path: Path) -> None:
    encoded(images, vae, tmp_path / "half", dtype="bf16")
    whole, half = (load_dataset("latents", path=str(path)) for path in (made, tmp_path / "half"))
    assert half.sample_bytes * 2 == whole.sample_bytes
    torch.testing.assert_close(half.plain(torch.arange(30)), whole.plain(torch.arange(30)), atol=0.02, rtol=0.02)
    assert half.fingerprint != whole.fingerprint


class Stopped(Exception):
    """Stands for a process that is killed while it encodes."""


def test_a_stopped_encoding_is_refused_and_continues(
    images: Path, vae: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "SHARD", 8)

    def stop(done: int, total: int | None) -> None:
        assert total == 30
        if done > 16:
            raise Stopped

    with pytest.raises(Stopped):
        encoded(images, vae, tmp_path / "set", progress=stop)
    with pytest.raises(InputError, match="half encoded"):
        load_dataset("latents", path=str(tmp_path / "set"))
    with pytest.raises(InputError, match="dtype was fp32, is bf16"):
        encoded(images, vae, tmp_path / "set", dtype="bf16")
    seen: list[int] = []
    encoded(images, vae, tmp_path / "set", progress=lambda done, _total: seen.append(done))
    assert seen == [24, 30]  # two shards were there
    one, other = (load_dataset("latents", path=str(path)) for path in (tmp_path / "set", made))
    index = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one.plain(index), other.plain(index), atol=1e-5, rtol=1e-5)
    assert torch.equal(one.labels, other.labels)
    encoded(images, vae, tmp_path / "set")  # is there already
    with pytest.raises(InputError, match="is there already"):
        encoded(images, vae, tmp_path / "set", flip=True)


def test_flips_happen_once_before_encoding(images: Path, vae: Path, tmp_path: Path) -> None:
    encoded(images, vae, tmp_path / "set", flip=True)
    pixels = load_image_folder(str(images), flips=False).images
    coder = latents.load_vae(str(vae))
    stored = load_dataset("latents", path=str(tmp_path / "set")).read(torch.arange(30))[0]
    straight, mirrored = (latents.encode(coder, part) for part in (pixels, pixels.flip(-1)))
    is_straight = torch.tensor([torch.allclose(a, b, atol=1e-5) for a, b in zip(stored, straight, strict=True)])
    is_mirrored = torch.tensor([torch.allclose(a, b, atol=1e-5) for a, b in zip(stored, mirrored, strict=True)])
    assert (is_straight ^ is_mirrored).all()
    assert 5 < int(is_mirrored.sum()) < 25


def reference_layout(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    means = 2 * torch.randn(20, 3, 8, 8, generator=generator) + 1
    stds = torch.rand(20, 3, 8, 8, generator=generator) + 0.1
    std = ((stds**2).mean((0, 2, 3)) + means.var((0, 2, 3), unbiased=False)).sqrt()
    parts: dict[str, object] = {
        "posterior_means": means,
        "posterior_stds": stds,
        "labels": torch.arange(20) % 4,
        "stats": {"mean": means.mean((0, 2, 3)), "std": std},
    }
    for name, part in (parts | changes).items():
        torch.save(part, folder / f"{name}.pt")
    return folder


def test_the_references_layout_is_taken_as_it_is(vae: Path, tmp_path: Path) -> None:
    source = reference_layout(tmp_path / "theirs")
    record = encoded(source, vae, tmp_path / "set")
    stored = load_dataset("latents", path=str(tmp_path / "set")).read(torch.arange(20))[0]
    assert torch.equal(stored[:, 0], torch.load(source / "posterior_means.pt", weights_only=True))
    assert torch.equal(stored[:, 1], torch.load(source / "posterior_stds.pt", weights_only=True))
    stats = torch.load(source / "stats.pt", weights_only=True)
    torch.testing.assert_close(torch.tensor(record.std), stats["std"], atol=1e-5, rtol=1e-5)
    assert record.classes == ["0", "1", "2", "3"]
    assert load_dataset("latents", path=str(tmp_path / "set")).pixels(torch.arange(2)).shape == (2, 3, 16, 16)


class Evil:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": torch.arange(19)}, "does not hold the reference's latents"),
        ({"stats": {"mean": torch.zeros(3), "std": torch.ones(3)}}, "does not belong to these latents"),
        ({"stats": {"mean": torch.zeros(2), "std": torch.ones(2)}}, "does not belong to these latents"),
        ({"labels": Evil()}, "cannot be read as tensors"),
    ],
)
def test_another_layout_is_refused(
    changes: dict[str, object], says: str, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says):
        encoded(reference_layout(tmp_path / "theirs", **changes), vae, tmp_path / "set")
    assert not (tmp_path / "ran").exists()


def edm2_zip(path: Path, broken: bytes | None = None) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(9, 6, 8, 8)).astype(np.float32)
    values[:, 3:] = np.abs(values[:, 3:]) + 0.1
    rows = []
    with zipfile.ZipFile(path, "w") as archive:
        for number, value in enumerate(values):
            file = io.BytesIO()
            np.save(file, value)
            name = f"00000/img-mean-std-{number:08d}.npy"
            archive.writestr(name, broken if broken is not None and number == 4 else file.getvalue())
            rows.append([name, number % 3])
        archive.writestr("dataset.json", json.dumps({"labels": rows}))
    return values


def test_edm2s_zip_is_taken_as_it_is(vae: Path, tmp_path: Path) -> None:
    values = edm2_zip(tmp_path / "edm2.zip")
    encoded(tmp_path / "edm2.zip", vae, tmp_path / "set")
    data = load_dataset("latents", path=str(tmp_path / "set"))
    assert np.array_equal(data.read(torch.arange(9))[0].flatten(1, 2).numpy(), values)
    assert data.labels.tolist() == [0, 1, 2] * 3
    edm2_zip(tmp_path / "bad.zip", broken=b"nothing")
    with pytest.raises(InputError, match=r"00000004.npy cannot be read as a latent"):
        encoded(tmp_path / "bad.zip", vae, tmp_path / "other")


def test_a_vae_that_cannot_be_loaded_is_refused(images: Path, vae: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file(load_file(vae / "diffusion_pytorch_model.safetensors"), tmp_path / "own.safetensors")
    (tmp_path / "config.json").write_bytes((vae / "config.json").read_bytes())
    assert latents.weights_hash(latents.load_vae(str(tmp_path / "own.safetensors"))) == latents.weights_hash(
        latents.load_vae(str(vae))
    )
    for source in (str(tmp_path / "none"), str(images), "none"):
        with pytest.raises(InputError, match="cannot be loaded"):
            latents.load_vae(source)


def test_a_changed_vae_or_missing_images_are_refused(images: Path, vae: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(images, tmp_path / "set")
    encoded(tmp_path / "set", vae, tmp_path / "latents")
    data = load_dataset("latents", path=str(tmp_path / "latents"))
    shutil.rmtree(tmp_path / "set")
    with pytest.raises(InputError, match="are not at"):
        data.pixels(torch.arange(2))
    weights = tmp_path / "latents" / "vae" / "diffusion_pytorch_model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x00\x00\x80\x3f")
    with pytest.raises(InputError, match="is not the VAE of these latents"):
        data.to_pixels(data.plain(torch.arange(2)))


def test_grey_images_are_encoded_as_three_channels(vae: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with ImageWriter(tmp_path / "grey", "grey", 16) as writer:
        for _ in range(12):
            writer.add(random.integers(0, 256, (1, 16, 16)).astype(np.uint8))
        writer.finish([0] * 12, ["all"], "raw", {}, {})
    (tmp_path / "grey" / "features").mkdir()  # of one channel: they cannot see what the VAE decodes
    encoded(tmp_path / "grey", vae, tmp_path / "set")
    data = load_dataset("latents", path=str(tmp_path / "set"))
    pixels = data.pixels(torch.arange(12))
    assert pixels.shape == (12, 3, 16, 16)
    assert data.to_pixels(data.plain(torch.arange(2))).shape == (2, 3, 16, 16)
    assert not (tmp_path / "set" / "features").exists()
