"""The server's OpenAPI description, with an example from the model that serves, and a page that shows it offline."""

import html
import json
from typing import Any

import fastapi

from clearway.serve.decode import MAX_KEY_LENGTH, MAX_ROWS
from clearway.serve.formats import ARROW, CSV, JSON_LINES
from clearway.serve.versions import Serving

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
_REFUSALS = {
    "400": "not of its format, a name twice, NaN or Infinity, bad encoding",
    "401": "the server asks callers for a token, and this one is none, or not taken",
    "406": "no answer fits the accept header",
    "408": "the body came too slowly",
    "413": "too many bytes or rows",
    "415": "a content type or encoding that is not taken",
    "422": "of its format, but a row, field or value the model does not take; the text names it and what is allowed",
    "429": "more requests than the caller's budget; Retry-After says when",
    "503": "no model takes traffic, or too many requests; Retry-After says when",
}


def describe(app: fastapi.FastAPI, serving: Serving) -> dict[str, Any]:
    """OpenAPI 3.1 of admin and caller routes."""
    from fastapi.openapi.utils import get_openapi  # noqa: PLC0415 - only when somebody looks

    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    for path, item in document["paths"].items():
        if path.startswith("/admin/"):
            for operation in item.values():
                operation["security"] = [{"adminToken": []}]
    document.setdefault("components", {})["securitySchemes"] = {"adminToken": {"type": "http", "scheme": "bearer"}}
    document["paths"] = {**_caller_paths(serving), **document["paths"]}
    return document


def _caller_paths(serving: Serving) -> dict[str, Any]:
    model = serving.loaded.get(serving.traffic.only or next(iter(serving.traffic.weights_pct), ""))
    row = model.package.encoder.json_schema() if model else {"type": "object"}
    example = {"instances": model.package.golden["rows"][:1]} if model else {"instances": [{}]}
    plain = {"200": {"description": "OK"}}
    return {
        "/invocations": {"post": _invocations(row, example)},
        "/outcomes": {"post": _outcomes()},
        **_v2_paths(),
        "/ping": {"get": {"summary": "200 while a model takes traffic, else 503", "responses": plain}},
        "/healthz": {"get": {"summary": "200 while the process answers", "responses": plain}},
        "/metrics": {"get": {"summary": "Prometheus text", "responses": plain}},
    }


def _invocations(row: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    texts = {"type": "array", "items": {"type": "string"}, "description": "one per row, for the prediction log"}
    value = {"type": ["number", "string", "null"]}
    split = {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}},
            "data": {"type": "array", "items": {"type": "array", "items": value}},
        },
    }
    body = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "instances": {"type": "array", "minItems": 1, "maxItems": MAX_ROWS, "items": row},
            "dataframe_split": split,
            "keys": texts,
            "event_times": texts,
            "batch_id": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"},
        },
        "oneOf": [{"required": ["instances"]}, {"required": ["dataframe_split"]}],
    }
    answer = {
        "type": "object",
        "required": ["predictions", "model_digest"],
        "properties": {
            "predictions": {"type": "array", "items": {"type": "number", "description": "one per row"}},
            "model_digest": {"type": "string"},
        },
    }
    refusals = {code: {"description": text, "content": _json(_ERROR)} for code, text in _REFUSALS.items()}
    return {
        "summary": "Score rows with whichever version the traffic table chooses",
        "requestBody": {"required": True, "content": _json(body, example) | _other_formats()},
        "responses": {"200": {"description": "one score per row", "content": _json(answer)}, **refusals},
    }


def _other_formats() -> dict[str, Any]:
    text, binary = {"type": "string"}, {"type": "string", "format": "binary"}
    return {JSON_LINES: {"schema": text}, CSV: {"schema": text}, ARROW: {"schema": binary}}


def _outcomes() -> dict[str, Any]:
    outcome = {
        "type": "object",
        "additionalProperties": False,
        "required": ["key", "model_digest", "value"],
        "properties": {
            "key": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
            "model_digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "value": {"type": "number", "minimum": 0, "maximum": 1},
            "request_id": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
        },
    }
    listed = {"type": "array", "maxItems": MAX_ROWS, "items": outcome}
    body = {
        "type": "object",
        "additionalProperties": False,
        "required": ["outcomes"],
        "properties": {"outcomes": listed},
    }
    return {
        "summary": "Report what became of answered rows, 0 to 1, larger is better; each counts once",
        "requestBody": {"required": True, "content": _json(body)},
        "responses": {"200": {"description": "how many counted, how many had been reported before"}},
    }


def _v2_paths() -> dict[str, Any]:
    """Open Inference Protocol; `{name}` is the product."""
    summaries = {
        "/v2": "Name and version of the server",
        "/v2/health/live": "200 while the process answers",
        "/v2/health/ready": "200 while a model takes traffic, else 503",
        "/v2/models/{name}": "Input and output tensors",
        "/v2/models/{name}/ready": "200 while a model takes traffic, else 503",
    }
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    plain = {"responses": {"200": {"description": "OK"}}}
    paths: dict[str, Any] = {
        path: {"get": {"summary": text, **plain, **({"parameters": [name]} if "{" in path else {})}}
        for path, text in summaries.items()
    }
    body = {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array", "minItems": 1}}}
    infer = {"summary": "Score rows given as tensors, one per column", "parameters": [name], **plain}
    paths["/v2/models/{name}/infer"] = {"post": {**infer, "requestBody": {"required": True, "content": _json(body)}}}
    return paths


def _json(schema: dict[str, Any], example: Any = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"application/json": content}


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
pre{{background:#f4f4f6;padding:1rem;overflow:auto;border-radius:6px}}code.verb{{font-weight:700}}</style>
<h1>{title}</h1><p>Machine-readable: <a href="/openapi.json">/openapi.json</a></p>
<h2>Try it</h2><pre>{curl}</pre><h2>Calls</h2>{calls}</html>"""


def render_page(document: dict[str, Any]) -> str:
    """The description as one self-contained page: no script and nothing from another host, so it works offline."""
    calls = [
        f'<h3><code class="verb">{html.escape(verb.upper())}</code> <code>{html.escape(path)}</code></h3>{_call(op)}'
        for path, item in document["paths"].items()
        for verb, op in item.items()
    ]
    example = document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["example"]
    body = json.dumps(example).replace("'", "'\\''")
    curl = f"curl -s localhost:8890/invocations -H 'content-type: application/json' -d '{body}'"
    return _PAGE.format(title=html.escape(document["info"]["title"]), curl=html.escape(curl), calls="".join(calls))


def _call(operation: dict[str, Any]) -> str:
    text = f"<p>{html.escape(operation.get('description') or operation.get('summary', ''))}</p>"
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content:
        shown = html.escape(json.dumps(content, indent=2))
        text += f"<details><summary>body</summary><pre>{shown}</pre></details>"
    return text
