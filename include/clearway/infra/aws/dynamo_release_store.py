"""Release documents as one item per product in DynamoDB."""

import json
import uuid
from typing import Any

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import CompareAndSwapFailed, ConfigError, Unavailable
from clearway.contracts.manifest import canonical_json
from clearway.contracts.release_document import ReleaseDocument
from clearway.infra.aws.client import client, code_of, explained

SCHEME = "dynamodb"
# DynamoDB takes 400 KB per item, names included.
MAX_DOCUMENT_BYTES = 390_000
_REFUSED = "ConditionalCheckFailedException"


class DynamoReleaseStore:
    """One item per product; its version makes the write conditional.

    Each item names the attempt that wrote it, so that a write whose answer was lost, and that botocore sent again, is
    told from one that came too late.

    Args:
        url: `dynamodb://table`; the table's key is `product`, a string.
    """

    def __init__(self, url: str) -> None:
        scheme, _, self._table = url.partition("://")
        if scheme != SCHEME or not self._table or "/" in self._table:
            raise ConfigError(f"release store {url!r} is not a table; allowed: {SCHEME}://<table>")

    def read(self, product: str) -> tuple[ReleaseDocument, int]:
        with explained(f"table {self._table}"):
            answer = client("dynamodb").get_item(
                TableName=self._table, Key={"product": {"S": product}}, ConsistentRead=True
            )
        item = answer.get("Item")
        if item is None:
            return ReleaseDocument(product=product), 0
        return from_jsonable(ReleaseDocument, json.loads(item["document"]["S"])), int(item["version"]["N"])

    def swap(self, document: ReleaseDocument, *, expected_version: int) -> int:
        from botocore import exceptions as botocore  # noqa: PLC0415

        text, writer = canonical_json(to_jsonable(document)), uuid.uuid4().hex
        if len(text) > MAX_DOCUMENT_BYTES:
            raise ConfigError(
                f"release document of {document.product!r} has {len(text)} bytes; allowed: {MAX_DOCUMENT_BYTES}; "
                "shorten the plan of its rollout"
            )
        item = {
            "product": {"S": document.product},
            "version": {"N": str(expected_version + 1)},
            "document": {"S": text.decode()},
            "writer": {"S": writer},
        }
        with explained(f"table {self._table}"):
            try:
                client("dynamodb").put_item(
                    TableName=self._table,
                    Item=item,
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                    **_only_at(expected_version),
                )
            except botocore.ClientError as error:
                if code_of(error) != _REFUSED:
                    raise
                if error.response.get("Item", {}).get("writer", {}).get("S") != writer:
                    raise _refusal(document.product, expected_version, error) from error
        return expected_version + 1


def _refusal(product: str, version: int, error: Any) -> CompareAndSwapFailed | Unavailable:
    """A first attempt whose answer was lost may have been stored and replaced since: then nobody can know."""
    if error.response["ResponseMetadata"].get("RetryAttempts"):
        return Unavailable(
            f"release document of {product!r} was sent again for version {version + 1} and may have been stored before "
            "somebody else's; read it again and decide anew"
        )
    return CompareAndSwapFailed(
        f"release document of {product!r} is no longer at version {version}; read it again and decide anew"
    )


def _only_at(version: int) -> dict[str, Any]:
    if version == 0:
        return {"ConditionExpression": "attribute_not_exists(product)"}
    return {
        "ConditionExpression": "#version = :version",
        "ExpressionAttributeNames": {"#version": "version"},
        "ExpressionAttributeValues": {":version": {"N": str(version)}},
    }
