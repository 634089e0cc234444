"""Extractors: the shipped one, the published ones with made-up weights, and what is refused."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mpdit.data.registry import load_dataset
from mpdit.errors import InputError
from mpdit.randomness import uniform
from mpdit.scoring import small_classifier
from mpdit.scoring.extractors.registry import EXTRACTORS, ExtractorKind, load_extractor
from mpdit.scoring.frechet import metric_name
from mpdit.scoring.published_weights import PublishedWeights, find_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torchvision's and torch-fidelity's own


def pictures(count: int, channels: int, side: int) -> torch.Tensor:
    return (uniform((count, channels, side, side), 0, 0, "pictures") * 256).to(torch.uint8)


def published(name: str) -> PublishedWeights:
    weights = EXTRACTORS[name].weights
    assert weights is not None
    return weights


def test_the_classifier_names_digits_it_never_saw() -> None:
    from pipelines.scoring.train_classifier import accuracy, split

    dataset, extractor = load_dataset("digits"), load_extractor("digits")
    held_out = split(len(dataset))[1]
    found = accuracy(extractor.network, dataset, held_out)
    card = small_classifier.extractor_card("digits")
    assert found >= 0.97
    assert found == pytest.approx(card["held_out_accuracy"], abs=1e-4)
    assert len(held_out) == card["held_out_images"]
    assert card["data"] == dataset.fingerprint


def test_the_shipped_weights_are_small() -> None:
    assert (small_classifier.WEIGHTS / "digits.safetensors").stat().st_size <= 300_000


def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("digits.safetensors", "digits.json"):
        (tmp_path / name).write_bytes((small_classifier.WEIGHTS / name).read_bytes())
    with (tmp_path / "digits.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00")
    monkeypatch.setattr(small_classifier, "WEIGHTS", tmp_path)
    with pytest.raises(InputError, match="is damaged"):
        load_extractor("digits")


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(2, 1, 8, 8), "float32"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), r"\(2, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "3 channels"),
        (torch.zeros(2, 1, 16, 8, dtype=torch.uint8), "16×8 pixels"),
    ],
)
def test_images_of_the_wrong_size_or_type_are_refused(images: torch.Tensor, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_extractor("digits").features(images)


def test_an_unknown_extractor_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"nearest:\s+digits"):
        load_extractor("digit")


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the real Inception-v3's shapes, made up."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    made = tmp_path_factory.mktemp("inception") / "made-up.pth"
    patch = pytest.MonkeyPatch()
    patch.setattr(theirs, "load_state_dict_from_url", lambda *_args, **_options: made_up)
    patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
    made_up: dict[str, Any] = {}
    network = theirs.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    patch.undo()
    torch.save(network.state_dict(), made)
    return made


def test_the_spatial_features_are_what_the_first_branch_of_mixed_6_gives(
    inception_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPDIT_INCEPTION_WEIGHTS", str(inception_file))
    found, plain = load_extractor("inception_spatial"), load_extractor("inception")
    assert (found.dimensions, found.statistics, plain.statistics) == (7 * 17 * 17, ("mu_s", "sigma_s"), ("mu", "sigma"))
    assert found.name.startswith("inception_spatial-")  # not the published weights
    seen: list[torch.Tensor] = []
    layer = plain.network.network.Mixed_6d.branch1x1  # type: ignore[union-attr]
    layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain.features(images)
    features = found.features(images).reshape(2, 17, 17, 7)
    torch.testing.assert_close(features, seen[0][:, :7].permute(0, 2, 3, 1))


def test_inception_is_torch_fidelitys_network(inception_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setenv("MPDIT_INCEPTION_WEIGHTS", str(inception_file))
    found = load_extractor("inception")
    images = pictures(2, 3, 16)
    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(inception_file)
    )
    features, logits = theirs(images)
    assert found.dimensions == 2048
    torch.testing.assert_close(found.features(images), features)
    assert found.logits is not None
    torch.testing.assert_close(found.logits(features), logits)
    grey = images[:, :1]
    torch.testing.assert_close(found.features(grey), found.features(grey.repeat(1, 3, 1, 1)))


def test_a_fid_is_only_ever_measured_with_the_published_weights(
    inception_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPDIT_INCEPTION_WEIGHTS", str(inception_file))
    found = load_extractor("inception")
    hashed = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    assert found.name == f"inception-{hashed[:8]}"
    assert metric_name(found.name, 10_000) == f"fd_inception-{hashed[:8]}_10k"
    assert found.weights == f"sha256:{hashed}"


@pytest.mark.parametrize(
    ("extractor", "samples", "name"),
    [
        ("digits", 2000, "fd_digits_2k"),
        ("digits", 1797, "fd_digits_1797"),
        ("inception", 10_000, "fid_10k"),
        ("inception", 50_000, "fid_50k"),
        ("inception", 5000, "fd_inception_5k"),
        ("dinov2", 10_000, "fd_dinov2_10k"),
    ],
)
def test_a_metrics_name_says_its_features_and_its_count(extractor: str, samples: int, name: str) -> None:
    assert metric_name(extractor, samples) == name


@pytest.mark.parametrize("name", ["inception", "dinov2"])
def test_missing_weights_are_told_with_where_to_get_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_args: object, **_options: object) -> None:  # the machine's edge: no download in a test
        raise OSError("no network here")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(published(name).variable, raising=False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(InputError) as problem:
        load_extractor(name)
    text = str(problem.value)
    for part in (published(name).url, published(name).sha256, published(name).variable, "evaluation.extractor=auto"):
        assert part in text
    monkeypatch.setenv(published(name).variable, str(tmp_path / "nowhere.pth"))
    with pytest.raises(InputError, match="where there is no file"):
        load_extractor(name)


def test_weights_in_torchs_cache_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("MPDIT_INCEPTION_WEIGHTS", raising=False)
    cached = tmp_path / "hub" / "checkpoints" / published("inception").file
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"weights")
    assert find_weights(published("inception")) == cached


def test_a_file_that_holds_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"first.weight": torch.zeros(2)}, tmp_path / "other.pth")
    for name in ("inception", "dinov2"):
        monkeypatch.setenv(published(name).variable, str(tmp_path / "other.pth"))
        with pytest.raises(InputError, match=f"does not hold the weights of the {name} features"):
            load_extractor(name)


def test_dinov2_reads_its_size_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpdit.scoring.extractors.dinov2 import DinoV2

    torch.manual_seed(0)
    network = DinoV2(width=128, depth=2, grid=37)
    torch.nn.init.normal_(network.pos_embed, std=0.02)
    torch.save(network.state_dict(), tmp_path / "small.pth")
    monkeypatch.setenv("MPDIT_DINOV2_WEIGHTS", str(tmp_path / "small.pth"))
    found = load_extractor("dinov2")
    images = pictures(3, 3, 20)
    features = found.features(images)
    assert features.shape == (3, 128) == (3, found.dimensions)
    with torch.inference_mode():
        torch.testing.assert_close(features, network(images))
    torch.testing.assert_close(features.mean(-1), torch.zeros(3), atol=1e-5, rtol=0)  # after the last layer norm
    assert found.name.startswith("dinov2-")


def test_an_extractor_is_trained_for_any_labelled_images(tmp_path: Path) -> None:
    from pipelines.scoring.train_classifier import train_extractor

    path = train_extractor(replace(load_dataset("digits"), name="mine"), tmp_path, steps=60)
    assert path == tmp_path / "mine.safetensors"
    card = small_classifier.extractor_card("mine", tmp_path)
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["held_out_accuracy"] > 0.2
    assert load_extractor("mine", tmp_path).features(pictures(2, 1, 8)).shape == (2, 64)


@pytest.mark.parametrize(("resolution", "positions"), [(8, 4), (9, 5), (16, 4), (32, 4), (28, 7), (256, 4)])
def test_a_classifier_looks_at_few_positions_whatever_the_resolution(resolution: int, positions: int) -> None:
    network = small_classifier.SmallClassifier(3, resolution, 5)
    sizes: list[int] = []
    last = network.deeper[-1] if len(network.deeper) else network.third
    last.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[-1]))
    assert network(pictures(1, 3, resolution)).shape == (1, 64)
    assert sizes == [positions]


def test_an_extractor_of_a_plug_in_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = ExtractorKind("theirs.digits", "the same under another name", lambda device: load_extractor("digits"))
    monkeypatch.setitem(EXTRACTORS._kinds, kind.name, kind)
    assert load_extractor("theirs.digits").dimensions == 64
    with pytest.raises(InputError, match="the plug-in 'absent' is not installed"):
        load_extractor("absent.features")
