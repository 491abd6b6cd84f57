"""Read YAML that people write: plain values only, and every value knows its line.

The YAML 1.2 core reading of plain scalars (`no` is a string, `1e-3` a number, dates stay text), built straight from
parser events, so that nothing is ever constructed from a tag and no alias can grow. Refused: tags, anchors, aliases,
merge keys, duplicate keys, several documents, NaN and infinity, nesting deeper than MAX_DEPTH, files over MAX_BYTES.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clearway.contracts.errors import ConfigError

# A product or a configuration is a few hundred lines; anything far beyond is not one, or was made to hurt.
MAX_BYTES = 1_000_000
MAX_DEPTH = 20

Where = tuple[str | int, ...]

# libyaml where PyYAML was built with it (all its wheels), 10 times faster than the pure Python parser.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A parsed file: its value, and the line (from 1) where each path of keys and indices begins."""

    path: Path
    value: Any
    lines: dict[Where, int]

    def line_of(self, where: Where) -> int:
        """Line of the deepest part of `where` that the file has."""
        return next(self.lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in self.lines)


def read_yaml(path: Path) -> Text:
    """Parse one file. Raises: ConfigError naming file, line, what was found and what is allowed."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"file {path} does not exist; create it") from error
    return parse_yaml(data, path=path)


def parse_yaml(data: bytes, *, path: Path) -> Text:
    """Parse the bytes of `path`, as `read_yaml` does."""
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} has {len(data)} bytes; allowed: at most {MAX_BYTES}; move data out of it")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    try:
        return _Reader(path=path, events=yaml.parse(text, Loader=_LOADER)).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}:{mark.line + 1 if mark else 1}: is no YAML: {problem}; correct the line") from error


@dataclass(slots=True, kw_only=True)
class _Reader:
    """One pass over the parser's events."""

    path: Path
    events: Iterator[Any]
    lines: dict[Where, int] = field(default_factory=dict)

    def document(self) -> Text:
        value: Any = None
        num_documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                num_documents += 1
                if num_documents > 1:
                    raise self._refused(event, "a second document (`---`)", "one document per file")
                value = self._value(next(self.events), ())
        self.lines.setdefault((), 1)
        return Text(path=self.path, value=value, lines=self.lines)

    def _value(self, event: Any, where: Where, *, line: int | None = None) -> Any:
        self._check_plain(event, where)
        self.lines[where] = event.start_mark.line + 1 if line is None else line
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, where)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(where)
        return self._mapping(where)

    def _check_plain(self, event: Any, where: Where) -> None:
        if isinstance(event, yaml.AliasEvent):
            raise self._refused(event, f"alias *{event.anchor}", "the value written out")
        if event.anchor is not None:
            raise self._refused(event, f"anchor &{event.anchor}", "the value without an anchor")
        if event.tag is not None:
            raise self._refused(event, f"tag {event.tag!r}", "plain values without tags")
        if len(where) > MAX_DEPTH:
            raise self._refused(event, f"nesting of {len(where)} levels", f"at most {MAX_DEPTH}")

    def _sequence(self, where: Where) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*where, len(items))))
        return items

    def _mapping(self, where: Where) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._key(event, where)
            if key in items:
                first = self.lines[(*where, key)]
                raise self._refused(event, f"key {key!r} twice, first on line {first}", "each key once")
            items[key] = self._value(next(self.events), (*where, key), line=event.start_mark.line + 1)
        return items

    def _key(self, event: Any, where: Where) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._check_plain(event, where)
            raise self._refused(event, "a list or mapping as key", "plain text keys")
        self._check_plain(event, where)
        if event.value == "<<":
            raise self._refused(event, "merge key '<<'", "the keys written out")
        return str(event.value)

    def _scalar(self, event: Any, where: Where) -> str | int | float | bool | None:
        text: str = event.value
        if not event.implicit[0]:  # quoted or block text is text
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            return int(text)
        is_number = _FLOAT.fullmatch(text) is not None
        if _NOT_FINITE.fullmatch(text) or (is_number and not math.isfinite(float(text))):
            raise self._refused(event, f"{_dotted(where)} = {text}", "finite numbers")
        return float(text) if is_number else text

    def _refused(self, event: Any, what: str, allowed: str) -> ConfigError:
        return ConfigError(f"{self.path}:{event.start_mark.line + 1}: has {what}; allowed: {allowed}")


def _dotted(where: Where) -> str:
    return ".".join(str(part) for part in where) or "the file"
