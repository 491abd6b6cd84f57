"""Landed documents of the descriptions product: markup taken off, one row per service and per operation."""

import gzip
import html
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

INSTANT = pa.timestamp("us", tz="UTC")
COLUMNS = ("key", "version_at", "service", "protocol", "text")
_BREAK = re.compile(r"</(?:p|li|dt|dd|h\d|note|important)>|<br\s*/?>")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
# Ten texts were escaped twice; after the first pass only real names of markup may go, `<AccountId>` is text by then.
_LEFT_OVER = re.compile(r"</?(?:p|a|b|i|ul|ol|li|code|note|important)(?: [^<>]*)?>")
_SPACES, _LINES = re.compile(r"[ \t\r\f\v]+"), re.compile(r"\s*\n\s*")


def shape(raw: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """One row per description that says anything."""
    services = raw["services"]
    rows = [
        row
        for path, content in zip(services["path"].to_pylist(), services["content"].to_pylist(), strict=True)
        for row in _documents(path, json.loads(gzip.decompress(content)))
    ]
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    kinds = [(name, INSTANT if name == "version_at" else pa.string()) for name in COLUMNS]
    return {"documents": pa.table(columns).cast(pa.schema(kinds))}


def _documents(path: str, described: dict[str, Any]) -> Iterator[tuple[str, datetime, str, str, str]]:
    _, service, version, _ = path.split("/")
    at = datetime.strptime(version, "%Y-%m-%d").replace(tzinfo=UTC)
    protocol = described["metadata"]["protocol"]
    told = {"": described} | described.get("operations", {})
    for name, what in told.items():
        text = plain(what.get("documentation") or "")
        if text:
            yield (f"{service}/{version}/{name}", at, service, protocol, text)


def plain(markup: str) -> str:
    """Text as it would be read: a line per paragraph or item, no tags, no entities."""
    text = html.unescape(_TAG.sub("", _BREAK.sub("\n", markup)))
    text = html.unescape(_LEFT_OVER.sub("", _BREAK.sub("\n", text)))
    return _LINES.sub("\n", _SPACES.sub(" ", text)).strip()
