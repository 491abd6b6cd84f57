"""Blobs in S3. Strongly consistent and atomic per object, so an object is what a fsynced file is on one machine."""

import base64
import functools
import hashlib
import io
import uuid
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.infra.aws.client import client, code_of, explained, status_of
from clearway.infra.faults import fault

# Above this, parts are sent side by side; a part that fails is sent again alone.
MULTIPART_BYTES = 64 << 20
MAX_READS = 3
MAX_CREATES = 5
_DELETED_AT_ONCE = 1000  # what one call takes
# Which attempt made an object: tells a lost answer to our own write from somebody else's object.
_MAKER = "clearway-maker"


class S3Storage:
    """Objects below `s3://bucket/prefix`. Encryption, versions and lifecycle are the bucket's business."""

    def read(self, uri: str) -> bytes:
        bucket, key = bucket_and_key(uri)
        with explained(uri):
            return self._read(uri, bucket, key)

    def write(self, uri: str, data: bytes) -> None:
        bucket, key = bucket_and_key(uri)
        fault("storage.before_rename")
        with explained(uri):
            if len(data) < MULTIPART_BYTES:
                client("s3").put_object(Bucket=bucket, Key=key, Body=data, **_checksum(data))
            else:
                _upload(bucket, key, data)

    def create(self, uri: str, data: bytes) -> bool:
        bucket, key = bucket_and_key(uri)
        maker = uuid.uuid4().hex
        with explained(uri):
            return self._create(uri, bucket, key, data, maker=maker)

    def exists(self, uri: str) -> bool:
        bucket, key = bucket_and_key(uri)
        with explained(uri):
            return _head(bucket, key) is not None

    def list(self, prefix: str) -> list[str]:
        bucket, key = bucket_and_key(prefix)
        with explained(prefix):
            return sorted(f"s3://{bucket}/{found}" for found in _keys(bucket, key))

    def delete_tree(self, prefix: str) -> None:
        bucket, key = bucket_and_key(prefix)
        with explained(prefix):
            keys = list(_keys(bucket, key))
            for start in range(0, len(keys), _DELETED_AT_ONCE):
                some = [{"Key": found} for found in keys[start : start + _DELETED_AT_ONCE]]
                answer = client("s3").delete_objects(Bucket=bucket, Delete={"Objects": some, "Quiet": True})
                if answer.get("Errors"):
                    first = answer["Errors"][0]
                    raise Unavailable(
                        f"{len(answer['Errors'])} objects below {prefix} are still there; first: {first['Key']}: "
                        f"{first.get('Code')} {first.get('Message')}; delete again"
                    )

    def _read(self, uri: str, bucket: str, key: str) -> bytes:
        """A body may break off after its headers came, where botocore does not try again."""
        from botocore import exceptions as botocore  # noqa: PLC0415

        for attempt in range(1, MAX_READS + 1):
            try:
                data: bytes = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
                return data
            except botocore.ClientError as error:
                if _is_absent(error):
                    raise FileNotFoundError(uri) from error
                raise
            except (botocore.IncompleteReadError, botocore.ResponseStreamingError, botocore.ReadTimeoutError):
                if attempt == MAX_READS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _create(self, uri: str, bucket: str, key: str, data: bytes, *, maker: str) -> bool:
        from botocore import exceptions as botocore  # noqa: PLC0415

        for _ in range(MAX_CREATES):
            try:
                client("s3").put_object(
                    Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", Metadata={_MAKER: maker}, **_checksum(data)
                )
            except botocore.ClientError as error:
                if status_of(error) == HTTPStatus.PRECONDITION_FAILED:
                    # Perhaps by ourselves: the answer to our first attempt was lost, and botocore tried again.
                    found = _head(bucket, key)
                    return found is not None and found["Metadata"].get(_MAKER) == maker
                if status_of(error) != HTTPStatus.CONFLICT:
                    raise
            else:
                return True
        raise Unavailable(f"{uri} is being written by others {MAX_CREATES} times in a row; try again")


def open_s3_file(uri: str) -> Any:
    """A file that pyarrow reads in parts, several of them at a time. Raises: FileNotFoundError; OSError."""
    bucket, key = bucket_and_key(uri)
    return _arrow_s3().open_input_file(f"{bucket}/{key}")


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Raises: ConfigError for anything but `s3://bucket/key`."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key:
        raise ConfigError(f"uri {uri!r} is not in S3; allowed: s3://bucket/key")
    return bucket, key


@functools.cache
def _arrow_s3() -> Any:
    """pyarrow's own client: it finds roles and keys by itself, but not the address of anything but AWS."""
    from pyarrow import fs  # noqa: PLC0415 - it starts threads

    own = client("s3").meta
    is_aws = str(own.endpoint_url).endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return fs.S3FileSystem(region=own.region_name, endpoint_override=None if is_aws else own.endpoint_url)


def _checksum(data: bytes) -> dict[str, str]:
    """S3 refuses bytes that changed on the way, and keeps the digest beside the object."""
    return {"ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode()}


def _upload(bucket: str, key: str, data: bytes) -> None:
    from boto3.s3.transfer import TransferConfig

    config = TransferConfig(multipart_threshold=MULTIPART_BYTES, multipart_chunksize=MULTIPART_BYTES // 4)
    client("s3").upload_fileobj(io.BytesIO(data), bucket, key, ExtraArgs={"ChecksumAlgorithm": "SHA256"}, Config=config)


def _head(bucket: str, key: str) -> dict[str, Any] | None:
    from botocore import exceptions as botocore  # noqa: PLC0415

    try:
        found: dict[str, Any] = client("s3").head_object(Bucket=bucket, Key=key)
    except botocore.ClientError as error:
        if _is_absent(error):
            return None
        raise
    return found


def _is_absent(error: Exception) -> bool:
    """By status: the body that names the error may be cut off, and the answer to HEAD has none."""
    return status_of(error) == HTTPStatus.NOT_FOUND and code_of(error) != "NoSuchBucket"


def _keys(bucket: str, prefix: str) -> Iterator[str]:
    pages = client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix.rstrip("/") + "/")
    for page in pages:
        for found in page.get("Contents", ()):
            yield found["Key"]
