"""One request after the other where moto's threads would let two through, for tests/moto_server.py.

A conditional write looks and then writes: between the two, AWS lets nobody else write. A reader there sees an object
with all its metadata, which moto adds after the bytes.
"""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from moto.dynamodb.models import DynamoDBBackend
from moto.s3.responses import S3Response

ITEMS = ("get_item", "put_item", "update_item", "delete_item", "transact_write_items")
OBJECTS = ("get_object", "head_object", "put_object", "delete_object", "_key_response_post")


def add() -> None:
    """Have items of DynamoDB and objects of S3 read and written in turns."""
    for owner, names in ((DynamoDBBackend, ITEMS), (S3Response, OBJECTS)):
        turn = threading.RLock()
        for name in names:
            setattr(owner, name, _in_turn(getattr(owner, name), turn))


def _in_turn(call: Callable[..., Any], turn: threading.RLock) -> Callable[..., Any]:
    @wraps(call)
    def wait_and_call(*args: Any, **options: Any) -> Any:
        with turn:
            return call(*args, **options)

    return wait_and_call
