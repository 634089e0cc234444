"""What a bucket offers to a storage, and the registry of the kinds of buckets by the scheme of their URLs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from mpdit.errors import InputError
from mpdit.registry import Registry


class BucketLost(InputError):
    """A bucket does not answer, or refuses access."""


@dataclass(frozen=True)
class Entry:
    """One object: its size in bytes, a mark that changes with its content, and the time when it was written."""

    size: int
    mark: str
    written: datetime


class Bucket(Protocol):
    """The objects below one prefix, by their names relative to it. Every method raises BucketLost where it fails."""

    url: str

    def entries(self, folder: str = "") -> dict[str, Entry]:
        """Everything below a folder, by its name relative to that folder; only names that `is_plain` accepts."""

    def read(self, name: str) -> bytes | None:
        """An object's content; None where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Write an object, also over another."""

    def create(self, name: str, content: bytes) -> bool:
        """Write a new object; return False and change nothing where there is one of that name."""

    def replace(self, name: str, content: bytes, mark: str | None) -> str | None:
        """Write an object only while it has this mark, or, with None, while there is none of that name.

        Returns:
            Its new mark; None where nothing was written because the object is another.
        """

    def fetch(self, wanted: Mapping[str, Path]) -> None:
        """Fetch objects to files, which appear only when complete. Raises FileNotFoundError for a missing object."""

    def send(self, files: Mapping[str, Path]) -> None:
        """Write files to objects, by name. Raises FileNotFoundError where a file was removed meanwhile."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there count as removed."""

    def remove_folder(self, folder: str) -> None:
        """Remove an object of that name, and all below it."""

    def now(self) -> datetime:
        """The time by the bucket's clock, which also gives objects their times."""


def is_plain(name: str) -> bool:
    """Whether a name stays below its folder when it becomes a path: whoever can write the bucket chooses names."""
    return all(part not in ("", ".", "..") for part in name.split("/"))


@dataclass(frozen=True)
class BucketKind:
    """One kind of bucket.

    Attributes:
        name: the scheme of its URLs.
        doc: what it is.
        example: a URL, for messages.
        open: opens the bucket of a URL. Raises InputError where it cannot be used.
        identity: a text that differs for a bucket of the same URL at another place or of another account.
    """

    name: str
    doc: str
    example: str
    open: Callable[[str], Bucket]
    identity: Callable[[str], str]


BUCKETS: Registry[BucketKind] = Registry("kind of bucket", "sweeps.storage.buckets")


def bucket_kind(url: str) -> BucketKind:
    """The kind of the bucket that a URL names. Raises InputError."""
    return BUCKETS[url.partition("://")[0]]


def open_bucket(url: str) -> Bucket:
    """Open a bucket, as `s3://bucket/prefix`. Raises InputError where it is not there or cannot be used."""
    return bucket_kind(url).open(url)
