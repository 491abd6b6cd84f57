"""A package is refused unless every byte is the one that was signed."""

import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from clearway.contracts.errors import IntegrityError
from clearway.infra.layout import Layout
from clearway.infra.storage import LocalStorage, to_path
from clearway.packaging.encoder import Encoder
from clearway.packaging.package import FILES, MANIFEST, SIGNATURE, PackageContents, open_package, write_package
from clearway.packaging.runtime import CHUNK_ROWS, OnnxScorer

STORAGE = LocalStorage()


def mean_model() -> bytes:
    """score = row mean of the numbers; a real graph, small enough to flip each of its bytes."""
    nodes = [
        helper.make_node("ReduceMean", ["numeric", "axis"], ["score"], keepdims=0),
        helper.make_node("Identity", ["categorical"], ["unused"]),
    ]
    inputs = [
        helper.make_tensor_value_info("numeric", TensorProto.FLOAT, ["B", 2]),
        helper.make_tensor_value_info("categorical", TensorProto.INT64, ["B", 1]),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B"])]
    axis = [helper.make_tensor("axis", TensorProto.INT64, [1], [1])]
    graph = helper.make_graph(nodes, "mean", inputs, outputs, axis)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def contents(**changes: object) -> PackageContents:
    encoder = Encoder(numeric=("a", "b"), categorical=("c",), vocabulary={"c": ("x",)})
    parts: dict[str, object] = {
        "model": mean_model(),
        "weights": b"weights",
        "encoder": encoder,
        "schema": {"columns": {"a": "double"}},
        "reference": {"features": {}},
        "golden": {"rows": [{"a": 1.0, "b": 3.0, "c": "x"}], "scores": [2.0]},
        "facts": {"seed": 1},
    }
    return PackageContents(**(parts | changes))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout((tmp_path / "store").as_uri(), "flights")


def test_what_was_written_is_read(layout, tmp_path):
    ref = write_package(STORAGE, layout, contents(), key_folder=tmp_path / "keys")
    package = open_package(STORAGE, ref.uri, ref.digest, key_folder=tmp_path / "keys")
    assert ref.uri == layout.model(ref.digest)
    assert package.facts == {"seed": 1}
    assert package.encoder == contents().encoder
    assert package.read("weights.safetensors") == b"weights"
    assert OnnxScorer(package).score_rows(package.golden["rows"]).tolist() == package.golden["scores"]


def test_same_contents_same_digest_other_contents_other_digest(layout, tmp_path):
    keys = tmp_path / "keys"
    first = write_package(STORAGE, layout, contents(), key_folder=keys)
    assert write_package(STORAGE, layout, contents(), key_folder=keys) == first
    assert write_package(STORAGE, layout, contents(facts={"seed": 2}), key_folder=keys).digest != first.digest


@pytest.mark.parametrize("name", [*FILES, MANIFEST, SIGNATURE])
def test_every_single_byte_change_is_refused(layout, tmp_path, name):
    keys = tmp_path / "keys"
    ref = write_package(STORAGE, layout, contents(), key_folder=keys)
    path = to_path(ref.uri) / name
    good = path.read_bytes()
    for i in range(len(good)):
        path.write_bytes(good[:i] + bytes([good[i] ^ (1 << (i % 8))]) + good[i + 1 :])
        with pytest.raises(IntegrityError):
            open_package(STORAGE, ref.uri, ref.digest, key_folder=keys)
    path.write_bytes(good)
    open_package(STORAGE, ref.uri, ref.digest, key_folder=keys)


@pytest.mark.parametrize("damage", ["gone", "truncated", "longer"])
@pytest.mark.parametrize("name", [*FILES, MANIFEST, SIGNATURE])
def test_damaged_files_are_refused_and_writing_again_heals(layout, tmp_path, name, damage):
    keys = tmp_path / "keys"
    ref = write_package(STORAGE, layout, contents(), key_folder=keys)
    path = to_path(ref.uri) / name
    good = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(good[:-1] if damage == "truncated" else good + b"\0")
    with pytest.raises(IntegrityError):
        open_package(STORAGE, ref.uri, ref.digest, key_folder=keys)
    assert write_package(STORAGE, layout, contents(), key_folder=keys) == ref
    open_package(STORAGE, ref.uri, ref.digest, key_folder=keys)


def test_another_makers_package_is_refused_until_its_key_is_trusted(layout, tmp_path):
    ref = write_package(STORAGE, layout, contents(), key_folder=tmp_path / "theirs")
    write_package(STORAGE, layout, contents(facts={}), key_folder=tmp_path / "ours")
    with pytest.raises(IntegrityError, match="trusted"):
        open_package(STORAGE, ref.uri, ref.digest, key_folder=tmp_path / "ours")
    (tmp_path / "ours" / "partner.pub").write_bytes((tmp_path / "theirs" / "signing.pub").read_bytes())
    open_package(STORAGE, ref.uri, ref.digest, key_folder=tmp_path / "ours")


def test_valid_package_under_another_digest_is_refused(layout, tmp_path):
    keys = tmp_path / "keys"
    first = write_package(STORAGE, layout, contents(), key_folder=keys)
    second = write_package(STORAGE, layout, contents(facts={"seed": 2}), key_folder=keys)
    with pytest.raises(IntegrityError, match="expected"):
        open_package(STORAGE, first.uri, second.digest, key_folder=keys)


def test_signing_key_is_private(layout, tmp_path):
    write_package(STORAGE, layout, contents(), key_folder=tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys" / "signing.key").stat().st_mode) == 0o600


def test_golden_rows_are_required_and_few():
    with pytest.raises(ValueError, match="golden"):
        contents(golden={"rows": [], "scores": []})
    with pytest.raises(ValueError, match="golden"):
        contents(golden={"rows": [{}] * 33, "scores": [0.0] * 33})


def test_chunks_change_no_score(layout, tmp_path):
    ref = write_package(STORAGE, layout, contents(), key_folder=tmp_path / "keys")
    scorer = OnnxScorer(open_package(STORAGE, ref.uri, ref.digest, key_folder=tmp_path / "keys"))
    numeric = np.random.default_rng(0).normal(size=(2 * CHUNK_ROWS + 3, 2)).astype(np.float32)
    score = scorer.score(numeric, np.zeros((len(numeric), 1), np.int64))
    assert score.shape == (len(numeric),)
    np.testing.assert_allclose(score, numeric.mean(axis=1), atol=1e-6)
    assert scorer.score(numeric[:0], np.zeros((0, 1), np.int64)).shape == (0,)
