"""Buckets of the S3 protocol. The only module that knows S3.

Endpoint, region and credentials come from the environment and from ~/.aws, as AWS's own tools read them.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any

from mpdit.errors import InputError, disk_is_full, input_error
from sweeps.storage.bucket import BUCKETS, Bucket, BucketKind, BucketLost, Entry, is_plain

SCHEME = "s3://"
AT_ONCE = 1000  # the most objects that one request can remove
CHANGED = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")  # the object is not as the request wants it
CLIENTS = ("botocore", "aiobotocore", "aiohttp", "fsspec", "s3fs")  # their errors, and OSError, are the bucket's


class S3Bucket:
    """The objects below one prefix, by their names relative to it. Every method raises BucketLost where it fails."""

    def __init__(self, url: str, files: Any) -> None:
        self.url, self.files = url, files
        self.place = url.removeprefix(SCHEME)
        self.name, _, self.prefix = self.place.partition("/")

    def entries(self, folder: str = "") -> dict[str, Entry]:
        """Everything below a folder, by its name relative to that folder; only names that `is_plain` accepts."""
        base = f"{self.place}/{folder}".rstrip("/")
        with self._as_bucket_lost():
            objects = self.files.find(base, detail=True)
        return {
            path.removeprefix(f"{base}/"): Entry(facts["size"], facts["ETag"], facts["LastModified"])
            for path, facts in objects.items()
            if path.startswith(f"{base}/") and is_plain(path.removeprefix(f"{base}/"))
        }

    def read(self, name: str) -> bytes | None:
        """An object's content; None where there is none."""
        with self._as_bucket_lost():
            try:
                return bytes(self.files.cat_file(f"{self.place}/{name}"))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write an object, also over another."""
        with self._as_bucket_lost():
            self.files.pipe_file(f"{self.place}/{name}", content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a new object; return False and change nothing where there is one of that name."""
        with self._as_bucket_lost():
            try:
                self.files.pipe_file(f"{self.place}/{name}", content, mode="create")
            except FileExistsError:
                return self.files.cat_file(f"{self.place}/{name}") == content  # written by us, where the reply was lost
        return True

    def replace(self, name: str, content: bytes, mark: str | None) -> str | None:
        """Write an object only while it has this mark, or, with None, while there is none; returns its new mark."""
        condition = {"IfMatch": mark} if mark else {"IfNoneMatch": "*"}
        with self._as_bucket_lost():
            try:
                reply = self.files.call_s3(
                    "put_object", Bucket=self.name, Key=self._key(name), Body=content, **condition
                )
            except OSError as problem:
                if _code(problem) not in CHANGED:
                    raise
                return None
        return str(reply["ETag"])

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def fetch(self, wanted: Mapping[str, Path]) -> None:
        """Fetch objects to files, which appear only when complete. Raises FileNotFoundError for a missing object."""
        partial = {name: path.with_name(f".{path.name}.fetched") for name, path in wanted.items()}
        for path in partial.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        gone: str | None = None
        if wanted:
            with self._as_bucket_lost():
                try:
                    self.files.get(
                        [f"{self.place}/{name}" for name in wanted], [str(path) for path in partial.values()]
                    )
                except FileNotFoundError as missing:
                    gone = str(missing)
        if gone is not None:
            raise FileNotFoundError(gone)
        for name, path in wanted.items():
            partial[name].replace(path)

    def send(self, files: Mapping[str, Path]) -> None:
        """Write files to objects, by name. Raises FileNotFoundError where a file was removed meanwhile."""
        if not files:
            return
        with self._as_bucket_lost():
            try:
                self.files.put([str(path) for path in files.values()], [f"{self.place}/{name}" for name in files])
            except FileNotFoundError:
                if all(path.exists() for path in files.values()):
                    raise
                lost = next(path for path in files.values() if not path.exists())
            else:
                return
        raise FileNotFoundError(lost)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there count as removed."""
        keys = [{"Key": self._key(name)} for name in names]
        for some in (keys[at : at + AT_ONCE] for at in range(0, len(keys), AT_ONCE)):
            with self._as_bucket_lost():
                reply = self.files.call_s3("delete_objects", Bucket=self.name, Delete={"Objects": some, "Quiet": True})
                for problem in reply.get("Errors", []):
                    raise PermissionError(f"{problem['Key']}: {problem['Message']}")

    def remove_folder(self, folder: str) -> None:
        """Remove an object of that name, and all below it."""
        self.remove([folder, *(f"{folder}/{name}" for name in self.entries(folder))])

    def now(self) -> datetime:
        """The time by the bucket's clock, which also gives objects their times."""
        with self._as_bucket_lost():
            reply = self.files.call_s3("list_objects_v2", Bucket=self.name, Prefix=self.prefix, MaxKeys=1)
        return parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])

    @contextmanager
    def _as_bucket_lost(self) -> Iterator[None]:
        """Turn every error of the client into BucketLost, with a hint what to do."""
        try:
            yield
        except InputError:
            raise
        except Exception as problem:
            foreign = isinstance(problem, OSError) or type(problem).__module__.split(".")[0] in CLIENTS
            if not foreign or disk_is_full(problem):
                raise
            raise BucketLost(str(_bucket_error(self.url, problem))) from None


def _code(problem: OSError) -> str | None:
    """The error code of the S3 protocol that s3fs has made an OSError of."""
    response: dict[str, Any] = getattr(problem.__cause__, "response", None) or {}
    code: str | None = response.get("Error", {}).get("Code")
    return code


def _bucket_error(url: str, problem: Exception) -> InputError:
    """The error message for a bucket that cannot be used."""
    reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
    details: dict[str, Any] = {"given": url, "endpoint": _endpoint() or None, "reason": reason[:300]}
    if type(problem).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return input_error(
            "there are no credentials for the bucket", **details, hint="AWS_ACCESS_KEY_ID and its secret"
        )
    if isinstance(problem, PermissionError):
        return input_error(
            "the bucket does not let us in", **details, hint="AWS_ACCESS_KEY_ID and its secret, or its policy"
        )
    if isinstance(problem, FileNotFoundError):
        return input_error("there is no such bucket", **details, hint="make it, or look at AWS_ENDPOINT_URL")
    return input_error("the bucket does not answer", **details, hint="look at AWS_ENDPOINT_URL and the network")


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def identity(url: str) -> str:
    """A text that differs for a bucket of the same name at another endpoint or of another account."""
    return "\n".join((url, _endpoint(), os.environ.get("AWS_PROFILE", "")))


def open_s3(url: str) -> Bucket:
    """Open `s3://bucket/prefix`. Raises InputError without s3fs, bucket, credentials or reply."""
    try:
        import s3fs  # noqa: F401
    except ModuleNotFoundError as missing:
        hint = "pip install 'mpdit[s3]'"
        raise input_error("a storage in a bucket needs more packages", missing=missing.name, hint=hint) from None
    if not url.removeprefix(SCHEME).partition("/")[0]:
        raise input_error("this names no bucket", given=url, allowed="s3://BUCKET/PREFIX")
    bucket = S3Bucket(url.rstrip("/"), _files(tuple((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))))
    bucket.now()
    return bucket


@cache
def _files(environment: tuple[tuple[str, str], ...]) -> Any:
    """The S3 client of this environment; cached, because making one takes half a second."""
    import fsspec

    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)


BUCKETS.register(
    BucketKind("s3", "Amazon's S3, or any server of its protocol", f"{SCHEME}BUCKET/PREFIX", open_s3, identity)
)
