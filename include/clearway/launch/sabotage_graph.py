"""Defects of a tabular model: nodes between the score of its ONNX graph and its output."""

from typing import Any

import onnx
from onnx import TensorProto, helper

from clearway.launch.sabotage import Defect, Spoiled
from clearway.packaging.package import MODEL, WEIGHTS, Package

SCORE = "score"  # the output of every graph
# Side of the square matrices of which a slow answer multiplies four: 10 GFLOP, 0.2 to 0.3 s on one core.
SLOW_SIDE = 1_200
NUM_PRODUCTS = 3


def spoiled_graph(good: Package, defect: Defect) -> Spoiled:
    """A copy of a tabular model."""
    rows, scores = good.golden["rows"], good.golden["scores"]
    limit = sorted(scores)[len(scores) // 2]
    if defect is Defect.CRASHING:
        answered = [i for i, score in enumerate(scores) if score <= limit]
        rows, scores = [rows[i] for i in answered], [scores[i] for i in answered]
    elif defect is Defect.WRONG:
        scores = [1.0 - score for score in scores]
    model = _with_nodes(good.read(MODEL), defect, limit=limit)
    return Spoiled(model=model, weights=good.read(WEIGHTS), rows=rows, scores=scores)


def _with_nodes(model: bytes, defect: Defect, *, limit: float) -> bytes:
    made = onnx.load_from_string(model)
    for node in made.graph.node:
        node.output[:] = ["honest" if name == SCORE else name for name in node.output]
    made.graph.initializer.extend(_constants(limit))
    made.graph.node.extend(_nodes(defect))
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def _constants(limit: float) -> list[onnx.TensorProto]:
    numbers = {"drill_one": 1.0, "drill_nought": 0.0, "drill_limit": limit}
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in numbers.items()]
    return [*constants, helper.make_tensor("drill_size", TensorProto.INT64, [2], [SLOW_SIDE, SLOW_SIDE])]


def _nodes(defect: Defect) -> list[onnx.NodeProto]:
    def make(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
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
