"""What of a batch is sent, and in which portions: what the stage asks, and who answers for which kind of model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import open_storage
from clearway.packaging.text import MAX_TEXTS, TextEncoder, beginning

if TYPE_CHECKING:
    import pyarrow as pa

    from clearway.infra.environment import Environment
    from clearway.product import LoadedProduct

CHUNK_ROWS = 500  # half the rows one request may carry
# A float64 takes up to 25 bytes of JSON; this many values stay below 80 % of the server's body limit of 1 MiB.
CHUNK_VALUES = 32_000
# Of text in a request of several: some tenths of a second of scoring. A byte takes up to 6 of JSON.
CHUNK_BYTES = 16_384


class Sending(Protocol):
    """A kind of model, as whoever sends it a batch sees it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a request's rows."""
        ...

    def sendable(self, table: "pa.Table") -> "pa.Table":
        """The rows that a caller could ask about, as they would be sent."""
        ...

    def portions(self, table: "pa.Table") -> Iterator["pa.Table"]:
        """The rows in order, so many at a time as a request may carry."""
        ...


@dataclass(frozen=True, slots=True)
class TableRows:
    """A `Sending`: numbers and categories, missing ones too."""

    columns: tuple[str, ...]

    def sendable(self, table: "pa.Table") -> "pa.Table":
        return table

    def portions(self, table: "pa.Table") -> Iterator["pa.Table"]:
        num_rows = max(1, min(CHUNK_ROWS, CHUNK_VALUES // len(self.columns)))
        return (table.slice(start, num_rows) for start in range(0, len(table), num_rows))


@dataclass(frozen=True, slots=True)
class TextRows:
    """A `Sending`: one text each. Of a longer one than the server takes its beginning is sent, an empty one is not.

    `max_bytes`: longest text that the champion takes.
    """

    column: str
    max_bytes: int

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def sendable(self, table: "pa.Table") -> "pa.Table":
        import pyarrow as pa  # noqa: PLC0415 - only jobs load it

        texts = [beginning(text or "", self.max_bytes) for text in table[self.column].to_pylist()]
        cut = table.set_column(table.schema.get_field_index(self.column), self.column, pa.array(texts, pa.string()))
        return cut.filter(pa.array([bool(text) for text in texts], pa.bool_()))

    def portions(self, table: "pa.Table") -> Iterator["pa.Table"]:
        import pyarrow.compute as pc  # noqa: PLC0415 - likewise

        most = min(CHUNK_BYTES, MAX_TEXTS * self.max_bytes)
        start = num_bytes = 0
        for place, length in enumerate(pc.binary_length(table[self.column]).to_pylist()):
            if place > start and (num_bytes + length > most or place - start == CHUNK_ROWS):
                yield table.slice(start, place - start)
                start, num_bytes = place, 0
            num_bytes += length
        if start < len(table):
            yield table.slice(start)


def sending_for(product: "LoadedProduct", env: "Environment") -> Sending:
    """Whoever knows what the product's callers send. Raises: Unavailable for texts before a model has ever served."""
    features = product.spec.features
    if features.text is None:
        return TableRows(features.columns)
    from clearway.packaging.package import open_package  # noqa: PLC0415 - cryptography

    champion = open_release_store(env).read(product.name)[0].champion
    if champion is None:
        raise Unavailable(f"no model of {product.name!r} serves, so nobody can be asked; release one first")
    storage = open_storage(env.store_root)
    encoder = open_package(storage, champion.uri, champion.digest, key_folder=env.home / "keys").encoder
    if not isinstance(encoder, TextEncoder):
        raise ConfigError(
            f"product {product.name!r} has a text, and its champion {champion.digest} is of a {encoder.kind} model; "
            "release one that reads texts"
        )
    return TextRows(encoder.column, encoder.max_bytes)
