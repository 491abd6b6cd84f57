"""The trained network as an ONNX graph that takes raw numbers and gives probabilities.

Written node by node instead of traced: the graph stays small (about 30 nodes and two per member and
layer, whatever the number of columns), its bytes depend on the weights alone, and the encoding is one comparison,
gathers and a multiply-add for all columns. A row has the same score, to the bit, alone and among others.
Letters as in model.py.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from clearway.tabular.bins import Bins
from clearway.tabular.model import ModelShape

# Operators used are unchanged between this opset and today's; old runtimes read it.
OPSET, IR_VERSION = 18, 9

Weights = Mapping[str, npt.NDArray[np.float32]]


class _Graph:
    """Nodes and constants, named as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def add(self, op: str, *inputs: str, out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=out, **attributes))
        return out

    def split(self, x: str, outs: list[str]) -> list[str]:
        """Equal parts of the first axis."""
        self.nodes.append(helper.make_node("Split", [x], outs, name=f"split_{x}", axis=0, num_outputs=len(outs)))
        return list(outs)


def to_onnx(weights: Weights, shape: ModelShape, bins: Bins) -> bytes:
    """Inputs `numeric` float32 [B, N] (NaN = missing) and `categorical` int64 [B, C]; output `score` float32 [B]."""
    graph = _Graph()
    parts = [_numbers(graph, weights, shape, bins)]
    if shape.cardinalities:
        parts.append(_categories(graph, weights, shape))
    x = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, out="inputs", axis=1)  # [K*B, F]
    _average(graph, _logits(graph, x, weights, shape))
    return _serialise(graph, shape)


def _logits(graph: _Graph, x: str, weights: Weights, shape: ModelShape) -> str:
    """[K*B, F] → [B, K]

    One Gemm per member and layer, not one batched MatMul: the runtime packs a constant matrix when it loads, and then
    adds up in the same order whatever B is. Batched, a single row takes another kernel, with other last bits.
    """
    K, last = shape.num_members, len(shape.hidden)
    members = graph.split(x, [f"member_{k}" for k in range(K)])
    for k, inputs in enumerate(members):
        h = inputs
        for i in range(last):
            weight = graph.constant(f"weight_{i}_{k}", weights[f"weights.{i}"][k])
            bias = graph.constant(f"bias_{i}_{k}", weights[f"biases.{i}"][k, 0])
            h = graph.add("Relu", graph.add("Gemm", h, weight, bias, out=f"sum_{i}_{k}"), out=f"hidden_{i}_{k}")
        members[k] = h
    x = members[0] if K == 1 else graph.add("Concat", *members, out="all_hidden", axis=1)  # [B, K*H]
    # The last layers of all members side by side, each among zeros: one call instead of K.
    weight = graph.constant("weight_last", _block_diagonal(weights[f"weights.{last}"]))
    bias = graph.constant("bias_last", weights[f"biases.{last}"].reshape(K))
    return graph.add("Gemm", x, weight, bias, out="logits")


def _average(graph: _Graph, logits: str) -> None:
    probability = graph.add("Sigmoid", logits, out="probability")
    member_axis = graph.constant("member_axis", np.array([1], np.int64))
    graph.add("ReduceMean", probability, member_axis, out="score", keepdims=0)


def _numbers(graph: _Graph, weights: Weights, shape: ModelShape, bins: Bins) -> str:
    N, T, K, D = shape.num_numeric, shape.num_bins, shape.num_members, shape.numeric_dim
    last_axis = graph.constant("last_axis", np.array([2], np.int64))
    x = graph.add("Unsqueeze", "numeric", last_axis, out="numeric_BN1")
    # As infinity a missing value is above every edge, the added infinite one too, which counts it into slot T.
    missing = graph.add("IsNaN", x, out="is_missing")
    x = graph.add("Where", missing, graph.constant("infinity", np.float32(np.inf)), x, out="number")
    edges = np.pad(bins.low[:, 1:], ((0, 0), (0, 1)), constant_values=np.inf)
    is_above = graph.add("GreaterOrEqual", x, graph.constant("edges", edges), out="is_above")
    count = graph.add("Cast", is_above, out="is_above_number", to=TensorProto.FLOAT)
    bin_float = graph.add("ReduceSum", count, last_axis, out="bin_float", keepdims=0)
    slot = graph.add("Add", bin_float, graph.constant("slot_offset", _offsets(N, T)), out="slot_float")
    slot = graph.add("Cast", slot, out="slot", to=TensorProto.INT32)
    low = graph.constant("low", _with_missing(bins.low, 0))
    inverse = graph.constant("inverse_width", _with_missing(bins.inverse_width, 1))
    low, inverse = (graph.add("Gather", t, slot, out=f"{t}_of_slot", axis=0) for t in (low, inverse))
    place = graph.add("Mul", graph.add("Sub", x, low, out="above_low"), inverse, out="place_raw")
    zero, one = graph.constant("zero", np.float32(0)), graph.constant("one", np.float32(1))
    place = graph.add("Clip", place, zero, one, out="place")  # [B, N, 1]; of a missing value 1, times a change of 0
    base, change = _number_tables(weights, shape)
    base_row = graph.add("Gather", graph.constant("edge_table", base), slot, out="edge_vector", axis=0)
    change_row = graph.add("Gather", graph.constant("change_table", change), slot, out="change_vector", axis=0)
    moved = graph.add("Mul", change_row, place, out="moved")
    vectors = graph.add("Add", base_row, moved, out="number_vectors")  # [B, N, K*D]
    return _by_member(graph, vectors, "number", num_members=K, columns=N, dim=D)


def _categories(graph: _Graph, weights: Weights, shape: ModelShape) -> str:
    offsets = np.cumsum([0, *shape.cardinalities[:-1]]).astype(np.int64)
    row = graph.add("Add", "categorical", graph.constant("category_offset", offsets), out="category_row")
    table = graph.constant("embedding", weights["embedding"])
    vectors = graph.add("Gather", table, row, out="category_vectors", axis=0)
    columns, dim = len(shape.cardinalities), shape.embedding_dim
    return _by_member(graph, vectors, "category", num_members=shape.num_members, columns=columns, dim=dim)


def _by_member(graph: _Graph, x: str, name: str, *, num_members: int, columns: int, dim: int) -> str:
    """[B, columns, K*dim] → [K*B, columns*dim]"""
    split = graph.constant(f"{name}_split", np.array([-1, columns, num_members, dim], np.int64))
    x = graph.add("Reshape", x, split, out=f"{name}_split_by_member")
    x = graph.add("Transpose", x, out=f"{name}_member_first", perm=[2, 0, 1, 3])
    flat = graph.constant(f"{name}_flat", np.array([-1, columns * dim], np.int64))
    return graph.add("Reshape", x, flat, out=f"{name}_inputs")


def _offsets(num_columns: int, num_bins: int) -> npt.NDArray[np.float32]:
    return (np.arange(num_columns) * (num_bins + 1)).astype(np.float32)


def _with_missing(edges: npt.NDArray[np.float32], missing: float) -> npt.NDArray[np.float32]:
    """[N*(T+1), 1]: every column's bins, then its slot for the missing value; infinite edges are never looked up."""
    finite = np.where(np.isfinite(edges), edges, np.float32(0))
    return np.pad(finite, ((0, 0), (0, 1)), constant_values=missing).reshape(-1, 1)


def _block_diagonal(columns: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[K, H, 1] → [K*H, K], column k holds member k's weights in its own H rows and zeros elsewhere."""
    num_members = len(columns)
    return (np.eye(num_members, dtype=np.float32)[:, None, :] * columns).reshape(-1, num_members)


def _number_tables(weights: Weights, shape: ModelShape) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(vector at each lower edge, change across each bin), both [N*(T+1), K*D], as in TabularModel.number_tables."""
    slope = weights["slope"]
    below = np.concatenate([np.zeros_like(slope[:, :1]), np.cumsum(slope, axis=1)[:, :-1]], axis=1)
    edge = np.concatenate([weights["bias"] + below, weights["missing"]], axis=1)
    change = np.pad(slope, ((0, 0), (0, 1), (0, 0)))
    width = shape.num_members * shape.numeric_dim
    return edge.reshape(-1, width), change.reshape(-1, width)


def _serialise(graph: _Graph, shape: ModelShape) -> bytes:
    inputs = [
        helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["B", shape.num_numeric]),
        helper.make_tensor_value_info("categorical", TensorProto.INT64, ["B", len(shape.cardinalities)]),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"])]
    made = helper.make_graph(graph.nodes, "clearway_tabular", inputs, outputs, graph.constants)
    model = helper.make_model(
        made, producer_name="clearway", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
