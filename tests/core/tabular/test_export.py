"""The exported graph computes what the network computes, from raw numbers."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from clearway.tabular.bins import Bins
from clearway.tabular.export import to_onnx
from clearway.tabular.model import ModelShape, build, parameter_arrays, score
from clearway.tabular.training_set import encode

SHAPES = {
    "usual": {"num_numeric": 5, "cardinalities": (4, 9), "num_members": 3, "hidden": (16, 12)},
    "no categories": {"num_numeric": 3, "cardinalities": (), "num_members": 2, "hidden": (8,)},
    "one of each": {"num_numeric": 1, "cardinalities": (2,), "num_members": 1, "hidden": (4,)},
    "large": {"num_numeric": 40, "cardinalities": (4, 9, 30), "num_members": 4, "hidden": (192, 192)},
    "linear": {"num_numeric": 2, "cardinalities": (3,), "num_members": 2, "hidden": ()},
}


def case(name: str) -> tuple[ModelShape, Bins, np.ndarray, np.ndarray]:
    shape = ModelShape(num_bins=7, numeric_dim=3, embedding_dim=2, dropout=0.3, **SHAPES[name])
    rng = np.random.default_rng(1)
    numeric = rng.normal(size=(300, shape.num_numeric)).astype(np.float32)
    numeric[rng.random(numeric.shape) < 0.2] = np.nan
    numeric[:, 0] = np.round(numeric[:, 0])
    bins = Bins.fit(numeric[:200], num_bins=shape.num_bins)
    numeric[250:260] *= 1e6  # far outside the training range
    category = np.stack([rng.integers(0, c, 300) for c in shape.cardinalities], 1) if shape.cardinalities else None
    return shape, bins, numeric, np.zeros((300, 0), np.int64) if category is None else category


@pytest.mark.parametrize("name", SHAPES)
def test_graph_equals_network(name):
    shape, bins, numeric, category = case(name)
    model = build(shape, seed=3).eval()
    with torch.no_grad():
        model.embedding.normal_(generator=torch.Generator().manual_seed(1))
        rows = {key: torch.from_numpy(value) for key, value in encode(bins, numeric, category).items()}
        expected = score(model(rows["bin"].long(), rows["place"], rows["category"].long())).numpy()
    data = to_onnx(parameter_arrays(model), shape, bins)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = session.run(["score"], {"numeric": numeric, "categorical": category})[0]
    assert found.shape == (300,)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.std() > 0


@pytest.mark.parametrize("name", SHAPES)
def test_a_row_scores_the_same_bits_in_any_company(name):
    shape, bins, numeric, category = case(name)
    data = to_onnx(parameter_arrays(build(shape, seed=3)), shape, bins)
    for num_threads in (1, 2):
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        together = session.run(["score"], {"numeric": numeric, "categorical": category})[0]
        for size in (1, 2, 3, 5, 13, 16, 64, 150):
            starts = range(0, len(numeric), size)
            parts = [(numeric[i : i + size], category[i : i + size]) for i in starts]
            scores = [session.run(["score"], {"numeric": n, "categorical": c})[0] for n, c in parts]
            np.testing.assert_array_equal(np.concatenate(scores), together)


def test_same_weights_same_bytes():
    shape, bins, *_ = case("usual")
    weights = parameter_arrays(build(shape, seed=3))
    assert to_onnx(weights, shape, bins) == to_onnx(weights, shape, bins)
