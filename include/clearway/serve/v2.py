"""The Open Inference Protocol, version 2, in JSON: one input tensor per column, one output tensor `score`.

A null in a tensor of any type is a missing value. BOOL counts as 1 and 0. BYTES are texts, for text columns.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from clearway.serve.decode import Request, batch_id_of, check_num_rows, parse_whole
from clearway.serve.formats import Answer, check_columns, check_not_compressed
from clearway.serve.refusal import Refusal, shown
from clearway.serve.versions import Serving

MAX_ID = 64  # characters of a caller's own id, which the answer repeats
_KINDS: dict[str, frozenset[type]] = {
    "BOOL": frozenset((bool, type(None))),
    "INT64": frozenset((int, type(None))),
    "FP64": frozenset((int, float, type(None))),
    "BYTES": frozenset((str, type(None))),
}
_OUTPUT = "score"
_PLATFORMS = {"tabular": "onnx", "language": "pytorch"}


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class _Output(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] = {}


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Tensor]
    id: str = ""
    outputs: list[_Output] = []
    parameters: dict[str, Any] = {}


def reader_of(headers: dict[bytes, bytes], *, model: str) -> Callable[[bytes], tuple[Request, Answer]]:
    """Raises: Refusal 415 for anything but plain JSON; binary tensors are an extension this server has not."""
    kind, _, parameters = headers.get(b"content-type", b"application/json").partition(b";")
    charset = parameters.strip().lower().replace(b'"', b"")
    is_json = kind.strip().lower() == b"application/json" and charset in {b"", b"charset=utf-8"}
    if not is_json or b"inference-header-content-length" in headers:
        raise Refusal(415, "bad_content_type", "the content type is not taken; allowed: application/json in UTF-8")
    check_not_compressed(headers)
    return lambda data: _read(data, model=model)


def _read(data: bytes, *, model: str) -> tuple[Request, Answer]:
    body = _body(parse_whole(data))
    names = [tensor.name for tensor in body.inputs]
    check_columns(names)
    num_rows = _num_rows(body.inputs[0])
    columns = [_values(tensor, num_rows) for tensor in body.inputs]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    batch_id = body.parameters.get("batch_id")
    if batch_id is not None and not isinstance(batch_id, str):
        raise Refusal(422, "bad_batch_id", "parameters.batch_id is no text; allowed: 1 to 64 letters, digits, '-', '_'")
    request = Request(rows=rows, batch_id=batch_id_of(batch_id))
    request_id = body.id

    def write(scores: Sequence[float], digest: str) -> bytes:
        output = {"name": _OUTPUT, "datatype": "FP64", "shape": [len(scores)], "data": scores}
        answer = {"model_name": model, "model_version": digest, "outputs": [output]}
        return msgspec.json.encode(answer | {"parameters": {"model_digest": digest}} | _id(request_id))

    return request, Answer(content_type=b"application/json", write=write)


def _id(request_id: str) -> dict[str, str]:
    return {"id": request_id} if request_id else {}


def _body(parsed: Any) -> _Body:
    try:
        body = msgspec.convert(parsed, _Body)
    except msgspec.ValidationError as error:
        raise Refusal(422, "bad_body", f"the body is no inference request: {str(error)[:200]}") from error
    if len(body.id) > MAX_ID or (not body.id.replace("-", "").isalnum() * body.id.isascii() and body.id):
        raise Refusal(422, "bad_id", f"id is {shown(body.id)}; allowed: up to {MAX_ID} letters, digits or '-'")
    for output in body.outputs:
        if output.name != _OUTPUT:
            raise Refusal(422, "bad_output", f"output {shown(output.name)} does not exist; allowed: {_OUTPUT!r}")
    return body


def _num_rows(tensor: _Tensor) -> int:
    where, shape = shown(tensor.name), tensor.shape
    if not (len(shape) in {1, 2} and shape[1:] in ([], [1]) and shape[0] >= 0):
        raise Refusal(422, "bad_shape", f"input {where} has shape {shown(shape)}; allowed: [rows] or [rows, 1]")
    check_num_rows(shape[0])
    return shape[0]


def _values(tensor: _Tensor, num_rows: int) -> list[Any]:
    where = shown(tensor.name)
    if _num_rows(tensor) != num_rows:
        raise Refusal(422, "bad_shape", f"input {where} has {tensor.shape[0]} rows; the first input has {num_rows}")
    if tensor.datatype not in _KINDS:
        text = f"input {where} has datatype {shown(tensor.datatype)}; allowed: {', '.join(_KINDS)}"
        raise Refusal(422, "bad_datatype", text)
    if "binary_data_size" in tensor.parameters:
        raise Refusal(422, "bad_datatype", f"input {where} is binary; send its data as JSON")
    values = tensor.data
    if len(tensor.shape) == 2 and values and all(type(v) is list and len(v) == 1 for v in values):  # noqa: PLR2004
        values = [value for (value,) in values]
    if len(values) != num_rows:
        raise Refusal(
            422, "bad_shape", f"input {where} has {len(values)} values; allowed: {num_rows}, as its shape says"
        )
    if not _KINDS[tensor.datatype].issuperset(map(type, values)):
        text = f"input {where} has a value that is no {tensor.datatype}; allowed: such values, or null"
        raise Refusal(422, "bad_value", text)
    return [int(v) if v is not None else None for v in values] if tensor.datatype == "BOOL" else values


def describe_server() -> bytes:
    """GET /v2."""
    return msgspec.json.encode({"name": "clearway", "version": "1", "extensions": []})


def describe_model(model: str, serving: Serving) -> bytes:
    """GET /v2/models/{name}: columns of the version that takes traffic. Raises: Refusal 503 for none."""
    answering = next(iter(serving.traffic.weights_pct), "")
    if answering not in serving.loaded:
        raise Refusal(503, "no_model", "no model takes traffic yet; release one, or run the reconciler")
    encoder = serving.loaded[answering].package.encoder
    inputs = [{"name": name, "datatype": "FP64", "shape": [-1]} for name in encoder.numeric]
    inputs += [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in encoder.categorical]
    outputs = [{"name": _OUTPUT, "datatype": "FP64", "shape": [-1]}]
    facts = {"name": model, "versions": sorted(serving.traffic.weights_pct), "platform": _PLATFORMS[encoder.kind]}
    return msgspec.json.encode(facts | {"inputs": inputs, "outputs": outputs})


def refusal_body(refusal: Refusal) -> bytes:
    """The protocol's form of an error, with our code beside the text."""
    return msgspec.json.encode({"error": refusal.message, "code": refusal.code})
