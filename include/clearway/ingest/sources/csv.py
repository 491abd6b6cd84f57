"""Read CSV bytes the same way for every source."""

import pyarrow as pa
import pyarrow.csv


def read_csv(data: bytes, *, null_values: tuple[str, ...], column_types: dict[str, pa.DataType]) -> pa.Table:
    """CSV with a header line; types not given are inferred. Raises: pyarrow.ArrowInvalid."""
    options = pyarrow.csv.ConvertOptions(
        null_values=list(null_values), strings_can_be_null=True, column_types=column_types
    )
    return pyarrow.csv.read_csv(pa.BufferReader(data), convert_options=options)
