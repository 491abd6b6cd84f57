"""Where a release's evaluation lies and how other stages read it: digests and verdict, not the method."""

import json
from dataclasses import dataclass

from clearway.contracts.errors import IntegrityError
from clearway.contracts.manifest import sha256_of
from clearway.contracts.verdict import Verdict
from clearway.infra.layout import Layout
from clearway.infra.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationHead:
    """The part of an evaluation that others may rely on."""

    model_digest: str
    dataset_digest: str
    verdict: Verdict


def evaluation_uri(layout: Layout, release_id: str) -> str:
    """Address of a release's evaluation JSON."""
    return layout.release(release_id, "evaluate", "evaluation.json")


def read_evaluation(storage: Storage, layout: Layout, *, release_id: str, digest: str) -> EvaluationHead:
    """Raises: IntegrityError unless the evaluation of this release has exactly `digest`."""
    uri = evaluation_uri(layout, release_id)
    try:
        data = storage.read(uri)
    except FileNotFoundError as error:
        raise IntegrityError(
            f"release {release_id!r} has no evaluation at {uri}; run the evaluate stage first"
        ) from error
    if sha256_of(data) != digest:
        raise IntegrityError(
            f"evaluation {uri} has digest {sha256_of(data)}, expected {digest}; it was changed or made again, "
            "look at it again before answering"
        )
    raw = json.loads(data)
    return EvaluationHead(
        model_digest=raw["model_digest"], dataset_digest=raw["dataset_digest"], verdict=Verdict(raw["verdict"])
    )
