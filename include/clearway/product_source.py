"""Where a product's tables come from: the source section of product.yaml."""

from typing import Annotated, Literal

import pydantic

from clearway.product_part import Part


class PackageSource(Part):
    """Tables carried by an installed Python package, found without importing it.

    `files`: table → path inside the package. A pattern with `*` makes one row per file: its `path` and its `content`,
    the bytes as they are; for the `shape` function to read.
    """

    kind: Literal["package"]
    package: str
    files: dict[str, str] = pydantic.Field(min_length=1)
    null_values: tuple[str, ...] = ("",)

    @pydantic.field_validator("files")
    @classmethod
    def _lie_inside(cls, value: dict[str, str]) -> dict[str, str]:
        for table, path in value.items():
            if path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"{path!r} of {table!r} leaves the package; name a file inside it")
        return value


class FilesSource(Part):
    """Tables dropped as files: `uri` is a folder or s3 prefix.

    `files`: table → name pattern with `{batch_id}`, or a fixed name.
    """

    kind: Literal["files"]
    uri: str
    format: Literal["csv", "parquet"]
    files: dict[str, str] = pydantic.Field(min_length=1)
    null_values: tuple[str, ...] = ("",)

    def is_per_batch(self, table: str) -> bool:
        """Whether every batch has a file of its own, whose rows no other batch will see."""
        return "{batch_id}" in self.files[table]

    @pydantic.field_validator("uri")
    @classmethod
    def _can_be_opened(cls, value: str) -> str:
        is_address = "://" in value
        if value.startswith("~") or (is_address and not value.startswith(("file:///", "s3://"))):
            raise ValueError(f"{value!r} cannot be opened; allowed: a folder, file:///… or s3://…")
        return value

    @pydantic.field_validator("files")
    @classmethod
    def _are_patterns(cls, value: dict[str, str]) -> dict[str, str]:
        for table, pattern in value.items():
            try:
                name = pattern.format(batch_id="2024-01-31")
            except (KeyError, IndexError, ValueError, AttributeError):
                raise ValueError(
                    f"{pattern!r} of {table!r} is no file name; allowed in braces: {{batch_id}}, and nothing else"
                ) from None
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"{pattern!r} of {table!r} leaves source.uri; name a file below it")
        return value


Source = Annotated[PackageSource | FilesSource, pydantic.Field(discriminator="kind")]
