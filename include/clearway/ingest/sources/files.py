"""Tables dropped as CSV or Parquet files into a folder or below an s3 prefix."""

from dataclasses import dataclass

import pyarrow as pa

from clearway.contracts.errors import ConfigError
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.infra.parquet import from_parquet
from clearway.infra.storage import Storage, join, open_storage
from clearway.ingest.schema import ARROW_TYPES
from clearway.ingest.sources import NotDelivered
from clearway.ingest.sources.csv import read_csv
from clearway.product import LoadedProduct
from clearway.product_source import FilesSource


def open_source(product: LoadedProduct) -> "DroppedFiles":
    """Raises: ConfigError for another kind or an address no file system serves."""
    spec = product.spec.source
    if not isinstance(spec, FilesSource):
        raise ConfigError(f"source kind {spec.kind!r} is not 'files'; correct source.kind of {product.name!r}")
    # A path without a scheme is relative to the product's folder, so that a product can carry its own files.
    root = spec.uri if "://" in spec.uri else (product.folder / spec.uri).resolve().as_uri()
    try:
        storage = open_storage(root)
    except ConfigError as error:
        raise ConfigError(
            f"source.uri {spec.uri!r} cannot be opened; allowed: a folder, file:///… or s3://…"
        ) from error
    # With a `shape` function the files have their own columns; without one they are the landed tables themselves.
    declared = {} if product.spec.shape else product.spec.tables
    types = {name: {c: ARROW_TYPES[t] for c, t in table.columns.items()} for name, table in declared.items()}
    return DroppedFiles(storage=storage, root=root, spec=spec, column_types=types)


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedFiles:
    """Files below `root`; a name with `{batch_id}` is one file per batch, any other serves all batches."""

    storage: Storage
    root: str
    spec: FilesSource
    column_types: dict[str, dict[str, pa.DataType]]

    def fingerprint(self, batch_id: str) -> str:
        digests = {name: sha256_of(self._bytes(pattern, batch_id)) for name, pattern in self.spec.files.items()}
        return sha256_of(canonical_json(digests))

    def read(self, batch_id: str) -> dict[str, pa.Table]:
        return {name: self._table(name, pattern, batch_id) for name, pattern in self.spec.files.items()}

    def _bytes(self, pattern: str, batch_id: str) -> bytes:
        uri = join(self.root, pattern.format(batch_id=batch_id))
        try:
            return self.storage.read(uri)
        except FileNotFoundError as error:
            raise NotDelivered(f"file {uri!r} of batch {batch_id} is not there; deliver it and run again") from error
        except IsADirectoryError as error:
            raise ConfigError(f"{uri!r} is a folder; allowed: a file; correct source.files of product.yaml") from error

    def _table(self, name: str, pattern: str, batch_id: str) -> pa.Table:
        data = self._bytes(pattern, batch_id)
        try:
            if self.spec.format == "parquet":
                return from_parquet(data)
            return read_csv(data, null_values=self.spec.null_values, column_types=self.column_types.get(name, {}))
        except pa.ArrowInvalid as error:
            raise pa.ArrowInvalid(f"{pattern.format(batch_id=batch_id)}: {error}") from error
