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


class FilesSource(Part):
    """Tables dropped as files: `uri` is a folder or s3 prefix.

    `files`: table → name pattern with `{batch_id}`, or a fixed name.
    """

    kind: Literal["files"]
    uri: str
    format: Literal["csv", "parquet"]
    files: dict[str, str] = pydantic.Field(min_length=1)
    null_values: tuple[str, ...] = ("",)


Source = Annotated[PackageSource | FilesSource, pydantic.Field(discriminator="kind")]
