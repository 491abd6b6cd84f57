"""Score texts with a language package through torch: the same numbers in evaluation and in the server."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor

from clearway.contracts.errors import ConfigError, IntegrityError
from clearway.language.initial import build_on_meta
from clearway.language.model import LanguageModel
from clearway.language.score import surprises
from clearway.language.shape import LanguageShape
from clearway.packaging.package import SHAPE, WEIGHTS, Package
from clearway.packaging.text import TextEncoder

if TYPE_CHECKING:
    import pyarrow as pa

# Pieces of a text that go through the network together: keeps the masks of long texts in tens of MB.
BATCH_PIECES = 16


class LanguageScorer:
    """One loaded language model: a text's score is its bits per byte, smaller is better. A `Scorer`.

    Every text goes through the network by itself, so that its score is the same to the bit in any company.

    Args:
        package: verified package of this kind.
        num_threads: threads inside one call; torch counts them for the whole process.

    Raises: ConfigError for a package of another kind; IntegrityError for weights that are not those of its shape.
    """

    def __init__(self, package: Package, num_threads: int = 1) -> None:
        if not isinstance(package.encoder, TextEncoder):
            raise ConfigError(f"package {package.digest} is of a {package.kind} model; allowed: a language model")
        torch.set_num_threads(num_threads)
        self.digest, self.encoder = package.digest, package.encoder
        shape = LanguageShape(**json.loads(package.read(SHAPE)))
        weights = safetensors.torch.load(package.read(WEIGHTS))
        self._model = with_weights(shape, weights, origin=f"package {package.digest}")

    @property
    def is_quick(self) -> bool:
        """A text takes milliseconds, a long one a good part of a second."""
        return False

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Bits per byte of each text. [B] Raises: DataError for a probability that is no number."""
        return scores_of(self._model, texts)

    def score_rows(self, rows: Sequence[dict[str, Any]]) -> npt.NDArray[np.float64]:
        """Of plain dicts, as a request carries them. [B] Raises: RowError, DataError."""
        return self.score(*self.encoder.encode_rows(rows))

    def score_table(self, table: "pa.Table") -> npt.NDArray[np.float64]:
        """Of a table that has the text column. [B] Raises: RowError, DataError."""
        return self.score(*self.encoder.encode_table(table))


def scores_of(model: LanguageModel, texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Bits per byte of each text, by itself. [B] Raises: DataError."""
    found = (surprises(model, [text], batch_size=BATCH_PIECES)[0].bits_per_byte for text in texts)
    return np.fromiter(found, np.float64, count=len(texts))


def with_weights(shape: LanguageShape, weights: Mapping[str, Tensor], *, origin: str) -> LanguageModel:
    """The network with these weights, for scoring. Raises: IntegrityError if they are not those of this shape."""
    model = build_on_meta(shape)
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if wanted != found:
        strange = sorted(set(wanted.items()) ^ set(found.items()))[:3]
        raise IntegrityError(f"weights of {origin} are not those of its shape, first {strange}; train again")
    model.load_state_dict(dict(weights), assign=True)
    return model.eval().requires_grad_(requires_grad=False)
