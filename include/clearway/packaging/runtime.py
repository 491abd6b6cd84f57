"""Score rows with a tabular package through ONNX Runtime: the same numbers in evaluation and in the server."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from clearway.contracts.errors import ConfigError, DataError
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import MODEL, Package

if TYPE_CHECKING:
    import pyarrow as pa

# Rows per call: keeps the intermediate arrays (B x N x bins) in tens of MB, past the point where more rows pay off.
CHUNK_ROWS = 2048


class OnnxScorer:
    """One loaded tabular model. A `clearway.packaging.scorer.Scorer`.

    Args:
        package: verified package.
        num_threads: threads inside one call; 1 is best for single rows, and leaves other cores to other requests.
    """

    def __init__(self, package: Package, num_threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        # A spinning pool takes whole cores from its neighbours between requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self.digest = package.digest
        self.encoder = encoder_of(package)
        self._session = ort.InferenceSession(package.read(MODEL), options, providers=["CPUExecutionProvider"])

    @property
    def is_quick(self) -> bool:
        """A row takes a few tenths of a millisecond."""
        return True

    def score(self, numeric: npt.NDArray[np.float32], categorical: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Probability per row. [B] Raises: DataError if the model answers with anything but finite numbers."""
        starts = range(0, max(len(numeric), 1), CHUNK_ROWS)
        parts = [self._run(numeric[i : i + CHUNK_ROWS], categorical[i : i + CHUNK_ROWS]) for i in starts]
        score = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if not np.isfinite(score).all():
            raise DataError(f"model {self.digest} gave a score that is not finite; do not serve it, train again")
        return score

    def score_rows(self, rows: Sequence[dict[str, Any]]) -> npt.NDArray[np.float32]:
        """Scores of plain dicts, as a request carries them. [B] Raises: RowError."""
        return self.score(*self.encoder.encode_rows(rows))

    def score_table(self, table: "pa.Table") -> npt.NDArray[np.float32]:
        """Scores of a table that has at least the model's columns. [B] Raises: RowError."""
        return self.score(*self.encoder.encode_table(table))

    def _run(self, numeric: npt.NDArray[np.float32], categorical: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        if not len(numeric):
            return np.empty(0, np.float32)
        (score,) = self._session.run(["score"], {"numeric": numeric, "categorical": categorical})
        return score  # type: ignore[no-any-return]


def encoder_of(package: Package) -> Encoder:
    """The encoder of a tabular package. Raises: ConfigError for another kind."""
    if not isinstance(package.encoder, Encoder):
        raise ConfigError(f"package {package.digest} is of a {package.kind} model, and this step is for tabular ones")
    return package.encoder
