"""Release documents as one row per product in SQLite or PostgreSQL."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.errors import CompareAndSwapFailed, ConfigError, DataError, Unavailable
from clearway.contracts.manifest import canonical_json
from clearway.contracts.release_document import ReleaseDocument

# How long a writer waits for another writer's commit; each is one row, so seconds mean a stuck disk.
BUSY_TIMEOUT_S = 15.0

_TABLE = sa.Table(
    "release_documents",
    sa.MetaData(),
    sa.Column("product", sa.String(80), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
)


class SqlReleaseStore:
    """One row per product; the version column makes the write conditional.

    A connection is opened per call: calls are rare, and a store object then survives a fork.

    Args:
        url: SQLAlchemy URL, `sqlite:///<file>` or `postgresql+<driver>://…`.
    """

    def __init__(self, url: str) -> None:
        try:
            self._url = sa.engine.make_url(url)
            is_sqlite = self._url.get_backend_name() == "sqlite"
            options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if is_sqlite else {}
            self._engine = sa.create_engine(self._url, poolclass=NullPool, **options)
        except (sa.exc.ArgumentError, ImportError) as error:
            raise ConfigError(
                f"release_store.url cannot be opened: {error}; allowed: sqlite:///file, postgresql+psycopg2://… or "
                "dynamodb://table; correct CLEARWAY__RELEASE_STORE__URL"
            ) from error
        self._is_ready = False
        if is_sqlite:
            sa.event.listen(self._engine, "connect", _make_durable)

    def read(self, product: str) -> tuple[ReleaseDocument, int]:
        query = sa.select(_TABLE.c.document, _TABLE.c.version).where(_TABLE.c.product == product)
        with self._transaction() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return ReleaseDocument(product=product), 0
        return from_jsonable(ReleaseDocument, json.loads(row.document)), int(row.version)

    def swap(self, document: ReleaseDocument, *, expected_version: int) -> int:
        text = canonical_json(to_jsonable(document)).decode()
        values = {"version": expected_version + 1, "document": text}
        if expected_version == 0:
            is_stored = self._insert({"product": document.product, **values})
        else:
            where = (_TABLE.c.product == document.product) & (_TABLE.c.version == expected_version)
            with self._transaction() as connection:
                is_stored = connection.execute(sa.update(_TABLE).where(where).values(values)).rowcount == 1
        if not is_stored:
            raise CompareAndSwapFailed(
                f"release document of {document.product!r} is no longer at version {expected_version}; "
                "read it again and decide anew"
            )
        return expected_version + 1

    def _insert(self, values: dict[str, Any]) -> bool:
        try:
            with self._transaction() as connection:
                connection.execute(sa.insert(_TABLE).values(values))
        except sa.exc.IntegrityError:
            return False
        return True

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            self._prepare()
            with self._engine.begin() as connection:
                yield connection
        except (sa.exc.OperationalError, sa.exc.InterfaceError, OSError) as error:
            shown, cause = self._url.render_as_string(hide_password=True), getattr(error, "orig", error)
            raise Unavailable(
                f"release store {shown} does not answer: {cause}; check the database, then retry"
            ) from error
        except sa.exc.DatabaseError as error:
            if isinstance(error, sa.exc.IntegrityError | sa.exc.ProgrammingError):
                raise
            shown = self._url.render_as_string(hide_password=True)
            raise DataError(
                f"release store {shown} is damaged: {error.orig}; restore it from a copy, or move it away and release "
                "again: the model server serves on meanwhile"
            ) from error

    def _prepare(self) -> None:
        if self._is_ready:
            return
        if self._url.get_backend_name() == "sqlite" and self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._engine.begin() as connection:
                connection.execute(CreateTable(_TABLE, if_not_exists=True))
        except (sa.exc.IntegrityError, sa.exc.ProgrammingError):
            # PostgreSQL lets two first starts race between its check and its catalogue insert; the loser looks again.
            with self._engine.begin() as connection:
                connection.execute(sa.select(sa.func.count()).select_from(_TABLE))
        self._is_ready = True


def _make_durable(connection: Any, _record: Any) -> None:
    """WAL lets readers pass a writer; FULL makes a commit survive power loss, as a release decision must."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        # The one statement that ignores the busy timeout; a later connection tries again, correctness needs no WAL.
        with suppress(sqlite3.OperationalError):
            cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
