"""Tables carried by an installed Python package: CSV, zipped CSV or Parquet files below its folder, or many other files
as one table.

The package is found, never imported: a data package may need libraries that are long gone, or download on import.
"""

import importlib.util
import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from clearway.contracts.errors import ConfigError, MissingExtra
from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.infra.parquet import from_parquet
from clearway.ingest.sources.csv import read_csv
from clearway.product import LoadedProduct
from clearway.product_source import PackageSource


def open_source(product: LoadedProduct) -> "PackageTables":
    """Raises: ConfigError for another kind, MissingExtra if the package is not installed."""
    spec = product.spec.source
    if not isinstance(spec, PackageSource):
        raise ConfigError(f"source kind {spec.kind!r} is not 'package'; correct source.kind of {product.name!r}")
    return PackageTables(folder=find_package(spec.package), files=dict(spec.files), null_values=spec.null_values)


def find_package(name: str) -> Path:
    """Folder of an installed package. Raises: MissingExtra."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise MissingExtra(f"package {name!r} is not installed; it carries the source tables, pip install {name}")
    return Path(found.submodule_search_locations[0])


@dataclass(slots=True, kw_only=True)
class PackageTables:
    """Files of one package; every batch is cut from the same tables, so they are read once."""

    folder: Path
    files: dict[str, str]
    null_values: tuple[str, ...]
    _tables: dict[str, pa.Table] = field(default_factory=dict)
    _fingerprint: str = ""

    def check_files(self) -> None:
        """Whether every file is there. Raises: ConfigError."""
        for path in self.files.values():
            if _is_many(path):
                self._found(path)
            else:
                self._location(path)

    def fingerprint(self, batch_id: str) -> str:  # noqa: ARG002 - one delivery holds all batches
        if not self._fingerprint:
            digests = {
                name: [[found, sha256_of(self._bytes(found))] for found in self._found(path)]
                if _is_many(path)
                else sha256_of(self._bytes(path))
                for name, path in self.files.items()
            }
            self._fingerprint = sha256_of(canonical_json(digests))
        return self._fingerprint

    def read(self, batch_id: str) -> dict[str, pa.Table]:  # noqa: ARG002 - one delivery holds all batches
        if not self._tables:
            self._tables = {name: self._table(path) for name, path in self.files.items()}
        return dict(self._tables)

    def _found(self, pattern: str) -> list[str]:
        """Files of a pattern, in a fixed order."""
        paths = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.glob(pattern))
        if not paths:
            raise ConfigError(f"no file of package folder {self.folder} is {pattern!r}; correct source.files")
        return paths

    def _location(self, path: str) -> Path:
        location = self.folder / path
        if not location.is_file():
            raise ConfigError(f"file {path!r} is not in package folder {self.folder}; correct source.files")
        return location

    def _bytes(self, path: str) -> bytes:
        return self._location(path).read_bytes()

    def _table(self, path: str) -> pa.Table:
        if _is_many(path):
            paths = self._found(path)
            return pa.table({"path": paths, "content": pa.array([self._bytes(p) for p in paths], pa.large_binary())})
        data = self._bytes(path)
        if path.endswith(".parquet"):
            return from_parquet(data)
        return read_csv(_unzipped(data, path), null_values=self.null_values, column_types={})


def _is_many(path: str) -> bool:
    return "*" in path


def _unzipped(data: bytes, path: str) -> bytes:
    """The only member of a .zip file; other bytes as they are."""
    if not path.endswith(".zip"):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        if len(names) != 1:
            raise ConfigError(f"{path!r} holds files {names}; allowed: exactly one CSV per zip")
        return archive.read(names[0])
