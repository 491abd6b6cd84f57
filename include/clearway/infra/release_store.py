"""Release documents, changed by compare-and-swap only."""

from typing import Protocol

from clearway.contracts.release_document import ReleaseDocument


class ReleaseStore(Protocol):
    """One document per product; every implementation passes the same conformance suite."""

    def read(self, product: str) -> tuple[ReleaseDocument, int]:
        """The document and its version number; a fresh document and version 0 if there is none."""
        ...

    def swap(self, document: ReleaseDocument, *, expected_version: int) -> int:
        """Store `document` if the stored version is still `expected_version`; returns the new version.

        Raises: CompareAndSwapFailed if someone else wrote in between.
        """
        ...
