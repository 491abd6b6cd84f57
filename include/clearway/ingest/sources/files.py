"""Tables dropped as CSV or Parquet files into a folder or below an s3 prefix."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs

from clearway.contracts.errors import ConfigError
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.infra.parquet import from_parquet
from clearway.infra.storage import join
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
    uri = spec.uri if "://" in spec.uri else (product.folder / spec.uri).resolve().as_uri()
    try:
        system, root = pyarrow.fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(
            f"source.uri {spec.uri!r} cannot be opened; allowed: a folder, file:///… or s3://…"
        ) from error
    # With a `shape` function the files have their own columns; without one they are the landed tables themselves.
    declared = {} if product.spec.shape else product.spec.tables
    types = {name: {c: ARROW_TYPES[t] for c, t in table.columns.items()} for name, table in declared.items()}
    return DroppedFiles(system=system, root=root, spec=spec, column_types=types)


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedFiles:
    """Files below `root`; a name with `{batch_id}` is one file per batch, any other serves all batches."""

    system: pyarrow.fs.FileSystem
    root: str
    spec: FilesSource
    column_types: dict[str, dict[str, pa.DataType]]

    def fingerprint(self, batch_id: str) -> str:
        digests = {name: sha256_of(self._bytes(pattern, batch_id)) for name, pattern in self.spec.files.items()}
        return sha256_of(canonical_json(digests))

    def read(self, batch_id: str) -> dict[str, pa.Table]:
        return {name: self._table(name, self._bytes(pattern, batch_id)) for name, pattern in self.spec.files.items()}

    def _bytes(self, pattern: str, batch_id: str) -> bytes:
        path = join(self.root, pattern.format(batch_id=batch_id))
        try:
            with self.system.open_input_stream(path) as stream:
                data: bytes = stream.read()
                return data
        except FileNotFoundError as error:
            raise NotDelivered(f"file {path!r} of batch {batch_id} is not there; deliver it and run again") from error

    def _table(self, name: str, data: bytes) -> pa.Table:
        if self.spec.format == "parquet":
            return from_parquet(data)
        return read_csv(data, null_values=self.spec.null_values, column_types=self.column_types.get(name, {}))
