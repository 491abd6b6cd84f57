"""Release documents, changed by compare-and-swap only."""

from typing import Protocol

from clearway.contracts.release_document import ReleaseDocument
from clearway.infra.environment import Environment


class ReleaseStore(Protocol):
    """One document per product; every implementation passes the same conformance suite."""

    def read(self, product: str) -> tuple[ReleaseDocument, int]:
        """The document and its version number; a fresh document and version 0 if there is none. Raises: Unavailable."""
        ...

    def swap(self, document: ReleaseDocument, *, expected_version: int) -> int:
        """Store `document` if the stored version is still `expected_version`; returns the new version.

        Raises: CompareAndSwapFailed if someone else wrote in between; Unavailable.
        """
        ...


def open_release_store(env: Environment) -> ReleaseStore:
    """The store this environment names: SQLite below home, any SQLAlchemy URL, or `dynamodb://table`."""
    if env.release_store_url.startswith("dynamodb://"):
        from clearway.infra.aws.dynamo_release_store import DynamoReleaseStore  # noqa: PLC0415

        return DynamoReleaseStore(env.release_store_url)
    from clearway.infra.sql_release_store import SqlReleaseStore  # noqa: PLC0415 - SQLAlchemy costs 0.3 s to import

    return SqlReleaseStore(env.release_store_url)
