"""A package opened by its kind, and how long its start and its answers may take.

Apart from `kind.py`: a server of a tabular model loads no torch.
"""

from clearway.packaging.package import Package
from clearway.packaging.scorer import Scorer
from clearway.packaging.text import LANGUAGE

# The longest a caller waits for a candidate before the champion answers. A request for rows takes milliseconds, the
# largest tens of them, and impatient callers give up after two or three seconds; the largest request for texts, eight
# of the longest, takes seconds by itself.
PATIENCE_S, PATIENCE_WITH_TEXT_S = 1.0, 10.0
# The longest that a candidate's process may take until it serves: half a second of imports, with torch two and a half,
# the model's own start, and its check. Thirty to forty times that is no slow machine any more. Whoever asks the server
# for a candidate waits for longer, and holds the release's lease for longer still.
START_S, START_WITH_TEXT_S = 20.0, 80.0


def patience_s(package: Package) -> float:
    """Seconds without an answer after which a candidate that serves the package has failed."""
    return PATIENCE_WITH_TEXT_S if package.kind == LANGUAGE else PATIENCE_S


def start_s(package: Package) -> float:
    """Seconds after which a candidate that still does not serve the package is given up."""
    return START_WITH_TEXT_S if package.kind == LANGUAGE else START_S


def open_scorer(package: Package, num_threads: int = 1) -> Scorer:
    """The loaded model of a verified package.

    Args:
        num_threads: threads inside one call; 1 is best for single rows, and leaves other cores to other requests.
    """
    if package.kind == LANGUAGE:
        from clearway.language.scorer import LanguageScorer  # noqa: PLC0415 - torch

        return LanguageScorer(package, num_threads=num_threads)
    from clearway.packaging.runtime import OnnxScorer  # noqa: PLC0415 - ONNX Runtime

    return OnnxScorer(package, num_threads=num_threads)
