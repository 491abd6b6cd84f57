"""Copies of a good model with one defect that no proof before live traffic finds: for drills of the way back.

A copy's golden answers are its own, as those of a model trained wrongly would be, so only live requests can tell.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from clearway.contracts.refs import ModelRef
from clearway.deploy.controls import Controls


class Defect(StrEnum):
    """What is wrong with the copy.

    SLOW: every answer takes long. WRONG: it says the opposite. CRASHING: no answer for about half of the rows.
    """

    SLOW = "slow"
    WRONG = "wrong"
    CRASHING = "crashing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoiled:
    """What a copy has of its own. `model`, `weights`: as in PackageContents; `rows`, `scores`: its golden answers."""

    model: bytes
    weights: bytes
    rows: list[dict[str, Any]]
    scores: list[float]


def sabotage(controls: Controls, *, uri: str, digest: str, defect: Defect) -> ModelRef:
    """Write and sign a copy of a model with a defect. Raises: IntegrityError if the model does not verify."""
    from clearway.packaging.package import PackageContents, open_package, write_package  # noqa: PLC0415 - numpy
    from clearway.packaging.text import LANGUAGE  # noqa: PLC0415 - likewise

    good = open_package(controls.storage, uri, digest, key_folder=controls.key_folder)
    if good.kind == LANGUAGE:
        from clearway.launch.sabotage_text import spoiled_text as spoiled  # noqa: PLC0415 - torch
    else:
        from clearway.launch.sabotage_graph import spoiled_graph as spoiled  # noqa: PLC0415 - onnx
    made = spoiled(good, defect)
    contents = PackageContents(
        model=made.model,
        weights=made.weights,
        encoder=good.encoder,
        schema=good.schema,
        reference=good.reference,
        golden={"rows": made.rows, "scores": made.scores},
        facts={**good.facts, "drill": defect.value},
    )
    return write_package(controls.storage, controls.layout, contents, key_folder=controls.key_folder)
