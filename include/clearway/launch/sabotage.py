"""Copies of a good model with one defect that no proof before live traffic finds: for drills of the way back.

A copy's golden answers are its own, as those of a model trained wrongly would be, so only live requests can tell.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from clearway.contracts.errors import ConfigError
from clearway.contracts.refs import ModelRef
from clearway.deploy.controls import Controls

if TYPE_CHECKING:
    import onnx

SCORE = "score"  # the output of every model package
# Side of the square matrices of which a slow answer multiplies four: 10 GFLOP, 0.2 to 0.3 s on one core.
SLOW_SIDE = 1_200
NUM_PRODUCTS = 3


class Defect(StrEnum):
    """What is wrong with the copy.

    SLOW: every answer takes long. WRONG: it says the opposite. CRASHING: no answer for about half of the rows.
    """

    SLOW = "slow"
    WRONG = "wrong"
    CRASHING = "crashing"


def sabotage(controls: Controls, *, uri: str, digest: str, defect: Defect) -> ModelRef:
    """Write and sign a copy of a model with a defect. Raises: IntegrityError if the model does not verify."""
    from clearway.packaging.package import (  # noqa: PLC0415 - numpy and pyarrow
        MODEL,
        WEIGHTS,
        PackageContents,
        open_package,
        write_package,
    )

    good = open_package(controls.storage, uri, digest, key_folder=controls.key_folder)
    if MODEL not in good.files:
        raise ConfigError(
            f"model {digest} is of kind {good.kind!r}; a drill spoils ONNX graphs, which tabular ones have"
        )
    rows, scores = good.golden["rows"], good.golden["scores"]
    limit = sorted(scores)[len(scores) // 2]
    if defect is Defect.CRASHING:
        answered = [i for i, score in enumerate(scores) if score <= limit]
        rows, scores = [rows[i] for i in answered], [scores[i] for i in answered]
    elif defect is Defect.WRONG:
        scores = [1.0 - score for score in scores]
    contents = PackageContents(
        model=_spoiled(good.read(MODEL), defect, limit=limit),
        weights=good.read(WEIGHTS),
        encoder=good.encoder,
        schema=good.schema,
        reference=good.reference,
        golden={"rows": rows, "scores": scores},
        facts={**good.facts, "drill": defect.value},
    )
    return write_package(controls.storage, controls.layout, contents, key_folder=controls.key_folder)


def _spoiled(model: bytes, defect: Defect, *, limit: float) -> bytes:
    """The graph with nodes between its score and its output."""
    import onnx

    made = onnx.load_from_string(model)
    for node in made.graph.node:
        node.output[:] = ["honest" if name == SCORE else name for name in node.output]
    made.graph.initializer.extend(_constants(limit))
    made.graph.node.extend(_nodes(defect))
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def _constants(limit: float) -> "list[onnx.TensorProto]":
    from onnx import TensorProto, helper

    numbers = {"drill_one": 1.0, "drill_nought": 0.0, "drill_limit": limit}
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in numbers.items()]
    return [*constants, helper.make_tensor("drill_size", TensorProto.INT64, [2], [SLOW_SIDE, SLOW_SIDE])]


def _nodes(defect: Defect) -> "list[onnx.NodeProto]":
    from onnx import helper

    def make(operator: str, inputs: list[str], output: str, **attributes: Any) -> "onnx.NodeProto":
        return helper.make_node(operator, inputs, [output], **attributes)

    if defect is Defect.WRONG:
        return [make("Sub", ["drill_one", "honest"], SCORE)]
    if defect is Defect.CRASHING:  # the root of what lies below the limit: none above it
        return [
            make("Sub", ["drill_limit", "honest"], "drill_left"),
            make("Sqrt", ["drill_left"], "drill_root"),
            make("Mul", ["drill_root", "drill_nought"], "drill_nothing"),
            make("Add", ["honest", "drill_nothing"], SCORE),
        ]
    return [
        make("ReduceMax", ["honest"], "drill_top", keepdims=0),
        make("Expand", ["drill_top", "drill_size"], "drill_0"),
        *(make("MatMul", [f"drill_{i}", "drill_0"], f"drill_{i + 1}") for i in range(NUM_PRODUCTS)),
        make("ReduceMean", [f"drill_{NUM_PRODUCTS}"], "drill_mean", keepdims=0),
        make("Mul", ["drill_mean", "drill_nought"], "drill_nothing"),
        make("Add", ["honest", "drill_nothing"], SCORE),
    ]
