"""Image sets made here, good and bad; every file that cannot be used is named."""

import errno
import io
import json
import os
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from mpdit.data.prepared_images import read_record
from mpdit.data.registry import load_dataset
from mpdit.errors import InputError
from mpdit.randomness import Draws
from pipelines.data.prepare import Progress, prepare


def picture(number: int, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, (*size[::-1], len(mode) if mode != "L" else 1))
    return Image.fromarray(values.astype(np.uint8).squeeze(), mode)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of nine pictures of all three types, one class named in another script."""
    root = tmp_path / "images"
    for number in range(18):
        folder = root / ("cat", "собака")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        kind, suffix = (("PNG", "png"), ("JPEG", "JPEG"), ("WEBP", "webp"))[number % 3]
        (folder / f"{number:02}.{suffix}").write_bytes(encoded(picture(number), kind))
    (root / ".DS_Store").write_text("of no interest")
    return root


def test_a_folder_is_prepared_once_and_mapped(images: Path, tmp_path: Path) -> None:
    record = prepare(str(images), tmp_path / "set", 8)
    assert (record.count, record.classes, record.skipped) == (18, ["cat", "собака"], {})
    data = load_dataset("folder", path=str(tmp_path / "set"), flips=False)
    assert data.labels.bincount().tolist() == [9, 9]
    assert (data.channels, data.resolution, data.classes) == (3, 8, 2)
    assert data.std == pytest.approx(float(data.images.double().std(unbiased=False)), abs=6e-5)
    torch.testing.assert_close(data.images.mean((0, 2, 3)), torch.tensor(record.mean), atol=6e-5, rtol=0)
    assert len(set(data.labels[:6].tolist())) == 2  # mixed: any part shows every class


def test_the_middle_of_an_image_is_kept(tmp_path: Path) -> None:
    wide = Image.new("RGB", (48, 16), (255, 0, 0))
    wide.paste((0, 255, 0), (16, 0, 32, 16))
    (tmp_path / "in").mkdir()
    for number in range(8):
        wide.save(tmp_path / "in" / f"{number}.png")
    prepare(str(tmp_path / "in"), tmp_path / "set", 8)
    data = load_dataset("folder", path=str(tmp_path / "set"))
    seen = data.pixels(torch.tensor([0]))[0]  # resized, then cut: the neighbours tinge the outer pixels
    assert (seen[..., 2:6].int() - torch.tensor([0, 255, 0])[:, None, None]).abs().max() < 10
    assert (seen[1] > 200).all()
    assert (data.classes, data.labels.tolist()) == (1, [0] * 8)  # no folders: no classes


def test_the_same_content_has_the_same_fingerprint_wherever_it_lies(images: Path, tmp_path: Path) -> None:
    first = prepare(str(images), tmp_path / "one", 8)
    (tmp_path / "elsewhere").mkdir()
    moved = images.rename(tmp_path / "elsewhere" / "images")
    assert prepare(str(moved), tmp_path / "two", 8).fingerprint == first.fingerprint
    (moved / "cat" / "00.png").write_bytes(encoded(picture(99)))
    assert prepare(str(moved), tmp_path / "three", 8).fingerprint != first.fingerprint


def test_flips_are_half_and_a_function_of_the_step(images: Path, tmp_path: Path) -> None:
    prepare(str(images), tmp_path / "set", 8)
    data = load_dataset("folder", path=str(tmp_path / "set"))
    index = torch.arange(12).repeat(40)
    seen = data.batch(index, Draws(0, 5, 480, slice(None)))
    flipped = (seen == data.plain(index).flip(-1)).flatten(1).all(1)
    straight = (seen == data.plain(index)).flatten(1).all(1)
    assert (flipped ^ straight).all()
    assert 0.4 < flipped.double().mean() < 0.6
    assert torch.equal(seen[100:200], data.batch(index[100:200], Draws(0, 5, 480, slice(100, 200))))
    assert not torch.equal(seen, data.batch(index, Draws(0, 6, 480, slice(None))))
    unflipped = load_dataset("folder", path=str(tmp_path / "set"), flips=False)
    assert unflipped.fingerprint != data.fingerprint
    assert torch.equal(unflipped.batch(index, Draws(0, 5, 480, slice(None))), data.plain(index))


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def spoil(root: Path, kind: str) -> None:
    cat = root / "cat"
    if kind == "corrupt":
        (cat / "bad.png").write_bytes(encoded(picture(50))[:200])
    elif kind == "animated":
        picture(51).save(cat / "moving.webp", save_all=True, append_images=[picture(52)])
    elif kind == "text":
        (cat / "notes.txt").write_text("not an image")
    elif kind == "disguised":
        (cat / "page.jpg").write_text("<html>")
    elif kind == "empty":
        (root / "dog").mkdir()
    elif kind == "link out":
        outside = root.parent / "secret.png"
        outside.write_bytes(encoded(picture(53)))
        (cat / "linked.png").symlink_to(outside)
    elif kind == "link to a folder":
        (root / "linked").symlink_to(root.parent)
    elif kind == "bomb":
        (cat / "bomb.png").write_bytes(png_claiming(60_000, 60_000))
    elif kind == "deep":
        Image.fromarray(np.zeros((9, 9), np.uint16)).save(cat / "deep.png")
    elif kind == "case":
        (root / "Cat").mkdir()
        (root / "Cat" / "1.png").write_bytes(encoded(picture(54)))
    elif kind == "beside":
        (root / "stray.png").write_bytes(encoded(picture(55)))
    elif kind == "pipe":
        os.mkfifo(cat / "pipe.png")


BAD = {
    "corrupt": ["cat/bad.png", "cannot be read as PNG, JPEG or WebP"],
    "animated": ["cat/moving.webp", "an animation of 2 frames"],
    "text": ["cat/notes.txt", "is not a PNG, JPEG or WebP file"],
    "disguised": ["cat/page.jpg", "not an image of these types"],
    "empty": ["dog", "is an empty class"],
    "link out": ["cat/linked.png", "is a link out of"],
    "link to a folder": ["linked", "is a link to a folder"],
    "bomb": ["cat/bomb.png", "a decompression bomb"],
    "deep": ["cat/deep.png", "more than 8 bits a channel"],
    "case": ["cat/", "its class differs from 'Cat' only in how it is written"],
    "beside": ["stray.png", "has no class"],
    "pipe": ["cat/pipe.png", "is not a file"],
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_and_can_be_left_out(kind: str, images: Path, tmp_path: Path) -> None:
    spoil(images, kind)
    with pytest.raises(InputError) as refused:
        prepare(str(images), tmp_path / "set", 8)
    assert all(part in str(refused.value) for part in [*BAD[kind], "--skip-bad"]), refused.value
    assert not (tmp_path / "set").exists()
    record = prepare(str(images), tmp_path / "set", 8, skip_bad=True)
    left_out = 9 if kind == "case" else 0  # all of the class written later
    assert len(record.skipped) == max(1, left_out)
    assert record.count == 18 + (kind == "case") - left_out
    assert json.loads((tmp_path / "set" / "set.json").read_text())["skipped"] == record.skipped


def test_all_bad_files_together_leave_the_good_ones(images: Path, tmp_path: Path) -> None:
    for kind in BAD:
        if kind != "case":
            spoil(images, kind)
    record = prepare(str(images), tmp_path / "set", 8, skip_bad=True)
    assert (record.count, len(record.skipped)) == (18, len(BAD) - 1)


def test_every_bad_file_is_named_at_once(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in BAD:
        if kind != "case":
            spoil(images, kind)
    with pytest.raises(InputError) as refused:
        prepare(str(images), tmp_path / "set", 8)
    message = str(refused.value)
    assert message.startswith(f"{len(BAD) - 1} files cannot be used")
    assert all(part in message for kind, parts in BAD.items() if kind != "case" for part in parts)
    monkeypatch.setattr("pipelines.data.prepare.MOST_NAMED", 3)
    with pytest.raises(InputError, match=r"bad-files\.txt") as refused:
        prepare(str(images), tmp_path / "set", 8)
    assert len(str(refused.value).splitlines()) == 1 + 3 + 1 + 1
    assert len((tmp_path / "set.partial" / "bad-files.txt").read_text().splitlines()) == len(BAD) - 1
    assert prepare(str(images), tmp_path / "set", 8, skip_bad=True).count == 18
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["images.bin", "labels.bin", "set.json"]


def grey_images(root: Path) -> Path:
    """Twelve grey pictures in two classes: files with one channel, and files with three that are alike."""
    for number in range(12):
        (root / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        shown = picture(number, mode="L") if number % 3 else picture(number, mode="L").convert("RGB")
        shown.save(root / "ab"[number % 2] / f"{number}.png")
    return root


def test_grey_images_stay_one_channel(tmp_path: Path) -> None:
    root = str(grey_images(tmp_path / "grey"))
    one, three = prepare(root, tmp_path / "one", 8), prepare(root, tmp_path / "three", 8, rgb=True)
    assert (one.channels, three.channels) == (1, 3)
    assert (one.mean, one.overall_std) == (three.mean[:1], three.overall_std)
    grey, coloured = (load_dataset("folder", path=str(tmp_path / name)) for name in ("one", "three"))
    assert torch.equal(grey.images.expand(-1, 3, -1, -1), coloured.images)
    assert prepare(root, tmp_path / "three", 8).channels == 3  # it is there, and has more than was asked for
    with pytest.raises(InputError, match="is there already"):
        prepare(root, tmp_path / "one", 8, rgb=True)


def test_one_coloured_image_makes_three_channels_of_all(tmp_path: Path) -> None:
    root = grey_images(tmp_path / "mixed")
    picture(99).save(root / "a" / "colour.png")
    mixed, forced = prepare(str(root), tmp_path / "one", 8), prepare(str(root), tmp_path / "three", 8, rgb=True)
    assert (mixed.channels, mixed.fingerprint, mixed.std) == (3, forced.fingerprint, forced.std)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["images.bin", "labels.bin", "set.json"]


class Stop(BaseException):
    """As Ctrl-C."""


def stop_at(count: int) -> Progress:
    def progress(done: int, _total: int | None) -> None:
        if done == count:
            raise Stop

    return progress


@pytest.mark.parametrize("at", [1, 5, 11, 18])
@pytest.mark.parametrize("kind", ["folder", "grey", "tar"])
def test_a_stopped_preparation_goes_on_and_is_the_undisturbed_one(
    at: int, kind: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = images
    if kind == "grey":
        source = grey_images(tmp_path / "grey")
        (source / "a" / "0.png").write_bytes(encoded(picture(99)))  # somewhere, three channels begin
    if kind == "tar":
        source = tmp_path / "shards"
        source.mkdir()
        samples = [{"png": encoded(picture(number)), "cls": b"1"} for number in range(18)]
        shard(source / "0.tar", samples)
    wanted = prepare(str(source), tmp_path / "whole" / "set", 8)
    with pytest.raises(Stop):
        prepare(str(source), tmp_path / "set", 8, progress=stop_at(min(at, wanted.count)))
    assert not (tmp_path / "set").exists()
    looked_at: list[int] = []
    prepare(str(source), tmp_path / "set", 8, progress=lambda done, _total: looked_at.append(done))
    assert looked_at == list(range(min(at, wanted.count) + 1, wanted.count + 1))  # none twice
    for name in ("images.bin", "labels.bin", "set.json"):
        assert (tmp_path / "set" / name).read_bytes() == (tmp_path / "whole" / "set" / name).read_bytes()


@pytest.mark.parametrize("change", ["mended", "more", "resolution", "lost", "damaged"])
def test_what_a_stopped_preparation_left_is_not_taken_for_something_else(
    change: str, images: Path, tmp_path: Path
) -> None:
    bad = images / "cat" / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"bad\.png cannot be read"):
        prepare(str(images), tmp_path / "set", 8)
    resolution = 8
    if change == "mended":
        bad.write_bytes(encoded(picture(77)))
    elif change == "more":
        bad.rename(images / "cat" / "00.png")
        (images / "cat" / "00.png").write_bytes(encoded(picture(78)))
    elif change == "resolution":
        bad.unlink()
        resolution = 4
    elif change == "lost":
        (tmp_path / "set.partial" / "images.bin").write_bytes(b"")
    else:
        (tmp_path / "set.partial" / "preparation.json").write_text("{")
    made = prepare(str(images), tmp_path / "set", resolution, skip_bad=True)
    assert made == prepare(str(images), tmp_path / "whole" / "set", resolution, skip_bad=True)


def test_a_cmyk_jpeg_is_turned_to_rgb_and_counted(images: Path, tmp_path: Path) -> None:
    (images / "cat" / "print.jpg").write_bytes(encoded(picture(56, mode="CMYK"), "JPEG"))
    (images / "cat" / "tiny.png").write_bytes(encoded(picture(57, size=(4, 5))))
    record = prepare(str(images), tmp_path / "set", 8)
    assert record.count == 20
    assert record.notes == {"CMYK turned to RGB": 1, "smaller than 8 pixels, enlarged": 1}


def test_one_image_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture(1).save(tmp_path / "in" / "only.png")
    with pytest.raises(InputError, match="holds 1 image only"):
        prepare(str(tmp_path / "in"), tmp_path / "set", 8)


def test_a_zip_is_a_folder(images: Path, tmp_path: Path) -> None:
    wanted = prepare(str(images), tmp_path / "set", 8)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted(images.rglob("*.*")):
            archive.write(path, Path("packed") / path.relative_to(images))
    found = prepare(str(tmp_path / "images.zip"), tmp_path / "zipped", 8)
    assert (found.count, found.classes) == (18, wanted.classes)
    assert found.fingerprint == wanted.fingerprint


def test_a_file_beside_the_class_folders_of_a_zip_does_not_make_them_one_class(images: Path, tmp_path: Path) -> None:
    wanted = prepare(str(images), tmp_path / "set", 8)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted(images.rglob("*.*")):
            archive.write(path, Path("packed") / path.relative_to(images))
        archive.writestr("packed/README.txt", "by hand")
    record = prepare(str(tmp_path / "images.zip"), tmp_path / "zip" / "set", 8, skip_bad=True)
    assert (record.classes, record.fingerprint) == (wanted.classes, wanted.fingerprint)
    assert list(record.skipped) == [f"{tmp_path}/images.zip/packed/README.txt"]


def test_a_zip_with_its_own_labels_is_edm2s(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "edm.zip", "w") as archive:
        rows = []
        for number in range(9):
            name = f"00000/img{number:08d}.png"
            archive.writestr(name, encoded(picture(number)))
            rows.append([name, number % 4])
        archive.writestr("dataset.json", json.dumps({"labels": rows}))
    record = prepare(str(tmp_path / "edm.zip"), tmp_path / "set", 8)
    assert record.classes == ["0", "1", "2", "3"]
    assert load_dataset("folder", path=str(tmp_path / "set")).labels.bincount().tolist() == [3, 2, 2, 2]


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png", "..\\evil.png", "C:/evil.png"])
def test_an_archive_that_leads_out_of_itself_is_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(name, encoded(picture(1)))
    with tarfile.open(tmp_path / "evil.tar", "w") as shard:
        shard.addfile(tarfile.TarInfo(name))
    for evil in ("evil.zip", "evil.tar"):
        with pytest.raises(InputError, match="leads out of it"):
            prepare(str(tmp_path / evil), tmp_path / "set", 8, skip_bad=True)


def test_a_file_that_unpacks_to_more_than_is_read_is_left(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpdit.data.image_entry.MAX_BYTES", 5000)
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(images.rglob("*.*")):
            archive.write(path, path.relative_to(images))
        archive.writestr("cat/zeros.png", b"\0" * 50_000)
    record = prepare(str(tmp_path / "images.zip"), tmp_path / "set", 8, skip_bad=True)
    assert record.count == 18
    assert "50,000 bytes" in record.skipped[f"{tmp_path}/images.zip/cat/zeros.png"]


def shard(path: Path, samples: list[dict[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for number, sample in enumerate(samples):
            for suffix, data in sample.items():
                member = tarfile.TarInfo(f"{path.stem}-{number:04}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def test_web_dataset_shards_are_read_as_they_come(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for part in range(2):
        samples = [{"jpg": encoded(picture(n), "JPEG"), "cls": str(n % 3).encode()} for n in range(6)]
        shard(tmp_path / "shards" / f"{part}.tar", samples)
    record = prepare(str(tmp_path / "shards"), tmp_path / "set", 8)
    assert (record.count, record.classes) == (12, ["0", "1", "2"])
    assert load_dataset("folder", path=str(tmp_path / "set")).labels.tolist() == [0, 1, 2] * 4


def test_a_shards_bad_samples_are_named(tmp_path: Path) -> None:
    good = [{"png": encoded(picture(n)), "cls": b"1"} for n in range(8)]
    bad = [{"png": encoded(picture(9)), "cls": b"seven"}, {"cls": b"1"}, {"png": encoded(picture(9)), "cls": b"-1"}]
    shard(tmp_path / "s.tar", good + bad)
    with pytest.raises(InputError, match=r"s-0008.png its class is b'seven'"):
        prepare(str(tmp_path / "s.tar"), tmp_path / "set", 8)
    record = prepare(str(tmp_path / "s.tar"), tmp_path / "set", 8, skip_bad=True)
    assert (record.count, len(record.skipped)) == (8, 3)


def test_what_is_no_source_is_refused(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_text("no zip")
    (tmp_path / "a.tar").write_text("no tar")
    for source, says in (("none", "nothing at"), ("a.zip", "as a zip"), ("a.tar", "as a tar")):
        with pytest.raises(InputError, match=says):
            prepare(str(tmp_path / source), tmp_path / "set", 8)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(InputError, match="is there already"):
        prepare(str(images), tmp_path / "taken", 8)
    monkeypatch.setitem(sys.modules, "datasets", None)  # as where it is not installed
    with pytest.raises(InputError, match="pip install datasets"):
        prepare("hf:some/images", tmp_path / "set", 8)


def test_an_unprepared_or_damaged_set_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mpdit data prepare"):
        load_dataset("folder", path=str(images))
    with pytest.raises(InputError, match="check the path"):
        load_dataset("folder", path=str(tmp_path / "none"))
    with pytest.raises(InputError, match="needs a path"):
        load_dataset("folder")
    prepare(str(images), tmp_path / "set", 8)
    with (tmp_path / "set" / "images.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(InputError, match="is not whole"):
        load_dataset("folder", path=str(tmp_path / "set"))
    (tmp_path / "set" / "set.json").write_text('{"kind": "images", "version": 99}')
    with pytest.raises(InputError, match="another mpdit"):
        read_record(tmp_path / "set")


def test_what_the_disk_refuses_is_a_message(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        prepare(str(images), tmp_path / "file" / "set", 8)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mpdit.data.prepared_images.ImageWriter.add", full)  # the edge of the machine
    with pytest.raises(InputError, match="no space is left"):
        prepare(str(images), tmp_path / "set", 8)
    assert not (tmp_path / "set").exists()


def test_a_set_of_the_hub_is_read_as_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Image:
        def __init__(self, decode: bool = True) -> None:
            self.decode = decode

    class ClassLabel:
        names = ("no", "yes")

    class Rows:
        """As the package `datasets` gives them; the package and the hub are the machine's edge."""

        features: ClassVar = {"image": Image(), "label": ClassLabel()}

        def cast_column(self, column: str, image: Image) -> "Rows":
            assert (column, image.decode) == ("image", False)
            return self

        def __len__(self) -> int:
            return 9

        def __getitem__(self, number: int) -> dict[str, object]:
            return {"image": {"bytes": encoded(picture(number), "JPEG"), "path": None}, "label": number % 2}

    def load(name: str, split: str) -> Rows:
        if name != "some/images":
            raise ValueError("no such set\nat all")
        return Rows()

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load, Image=Image))
    record = prepare("hf:some/images", tmp_path / "set", 8)
    assert (record.count, record.classes) == (9, ["no", "yes"])
    assert load_dataset("folder", path=str(tmp_path / "set")).labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    with pytest.raises(InputError, match="'other' cannot be loaded"):
        prepare("hf:other", tmp_path / "other", 8)
