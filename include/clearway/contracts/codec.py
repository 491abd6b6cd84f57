"""Frozen dataclasses to JSON and back, by their annotations: stage inputs and outputs, documents, judgements."""

import dataclasses
import types
import typing
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_jsonable(value: Any) -> Any:
    """Dataclasses become dicts, enums their values, tuples lists; everything else must be JSON already."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(k): to_jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonable(v) for v in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(
        f"{type(value).__name__} value {value!r} has no JSON form; allowed: dataclass, enum, dict, list, tuple, str, number, None"
    )


def from_jsonable(cls: type[T], value: Any) -> T:
    """Rebuild `cls`; unknown or missing keys are refused with the class and the key named (ValueError)."""
    return typing.cast(T, _rebuild(cls, value, where=cls.__name__))


def _rebuild(annotation: Any, value: Any, *, where: str) -> Any:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (inner,) = (a for a in args if a is not type(None))
        return _rebuild(inner, value, where=where)
    if origin is tuple:
        return tuple(_rebuild(args[0], v, where=where) for v in value)
    if origin is dict:
        return {k: _rebuild(args[1], v, where=f"{where}[{k}]") for k, v in value.items()}
    if dataclasses.is_dataclass(annotation):
        return _rebuild_dataclass(annotation, value, where=where)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return annotation(value)
    return float(value) if annotation is float and isinstance(value, int) else value


def _rebuild_dataclass(cls: Any, value: Any, *, where: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(cls)}
    required = {
        n for n, f in known.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if not isinstance(value, dict) or set(value) - set(known) or required - set(value):
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{where}: got {got}; required keys {sorted(required)}, allowed keys {sorted(known)}")
    hints = get_type_hints(cls)
    return cls(**{k: _rebuild(hints[k], v, where=f"{where}.{k}") for k, v in value.items()})
