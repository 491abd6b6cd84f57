"""Where tables come from: one file per kind of source, found by the `kind` in product.yaml."""

from importlib import import_module
from typing import Protocol

import pyarrow as pa

from clearway.product import LoadedProduct

# kind → module with `open_source(product) -> Source`
KINDS = {"package": "clearway.ingest.sources.package", "files": "clearway.ingest.sources.files"}


class Source(Protocol):
    """What ingest asks of a source."""

    def fingerprint(self, batch_id: str) -> str:
        """SHA-256 over the bytes the batch would be made from; equal means there is nothing to read again.

        Raises: NotDelivered if a file is not there (yet).
        """
        ...

    def read(self, batch_id: str) -> dict[str, pa.Table]:
        """Raw tables by name; rows of other batches may be among them.

        Raises: NotDelivered, or pyarrow.ArrowInvalid for bytes that are not what they claim to be.
        """
        ...


class NotDelivered(LookupError):
    """A file of a batch is not there."""


def open_source(product: LoadedProduct) -> Source:
    """The source product.yaml names."""
    source: Source = import_module(KINDS[product.spec.source.kind]).open_source(product)
    return source
