"""The feature rows of one batch, read in pieces: counting takes the memory of one piece, however large the batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clearway.infra.datasets import DatasetDocument, feature_uris
from clearway.infra.layout import Layout
from clearway.infra.parquet import open_parquet
from clearway.infra.storage import Storage

Ints = npt.NDArray[np.int64]

# With a hundred columns about 50 MB; smaller pieces take longer, larger ones do not take less.
ROWS_PER_PIECE = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRows:
    """Files that hold the batch, and how many rows there are in all. `rows_per_piece`: held at a time."""

    uris: tuple[str, ...]
    num_rows: int
    rows_per_piece: int = ROWS_PER_PIECE

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Every row once, in order. `columns`: those that are read; None for all."""
        for uri in self.uris:
            with open_parquet(uri) as file:
                for chunk in file.iter_batches(batch_size=self.rows_per_piece, columns=columns):
                    yield pa.Table.from_batches([chunk])

    def evenly(self, max_rows: int) -> pa.Table:
        """At most so many rows, evenly spaced; all of a smaller batch."""
        places, found, start = even_places(self.num_rows, max_rows), list[pa.Table](), 0
        for piece in self.pieces():
            found.append(taken(piece, places, start=start))
            start += len(piece)
        return pa.concat_tables(found)


def even_places(num_rows: int, max_rows: int) -> Ints:
    """At most `max_rows` of the numbers below `num_rows`, evenly spaced, in order."""
    return np.unique(np.linspace(0, num_rows - 1, min(num_rows, max_rows)).astype(np.int64))


def taken(piece: pa.Table, places: Ints, *, start: int) -> pa.Table:
    """Rows of a piece by their places in the batch. `start`: place of its first row."""
    begin, end = np.searchsorted(places, [start, start + len(piece)])
    return piece.take(pa.array(places[begin:end] - start))


def batch_rows(
    storage: Storage,
    layout: Layout,
    document: DatasetDocument,
    *,
    batch_id: str,
    rows_per_piece: int = ROWS_PER_PIECE,
) -> BatchRows:
    """Those of the dataset that belong to a batch; none of them is read yet."""
    uris = feature_uris(storage, layout, document)
    chosen = [(uri, piece) for uri, piece in zip(uris, document.features, strict=True) if piece.batch_id == batch_id]
    return BatchRows(
        uris=tuple(uri for uri, _ in chosen),
        num_rows=sum(piece.num_rows for _, piece in chosen),
        rows_per_piece=rows_per_piece,
    )
