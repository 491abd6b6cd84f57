"""Frozen dataclasses to JSON and back, by their annotations: stage inputs and outputs, documents, judgements."""

import dataclasses
import functools
import types
import typing
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
_hints_of = functools.cache(get_type_hints)  # half of the time it takes to read a release document


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
        f"{type(value).__name__} value {value!r} has no JSON form; "
        "allowed: dataclass, enum, dict, list, tuple, str, number, None"
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
        return _rebuild_tuple(args, _checked(value, list, where=where), where=where)
    if origin is dict:
        items = _checked(value, dict, where=where).items()
        return {k: _rebuild(args[1], v, where=f"{where}[{k}]") for k, v in items}
    if dataclasses.is_dataclass(annotation):
        return _rebuild_dataclass(annotation, value, where=where)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _rebuild_enum(annotation, value, where=where)
    if annotation is float and type(value) is int:
        return float(value)
    return _checked(value, annotation, where=where) if annotation in (str, int, float, bool) else value


def _checked(value: Any, kind: type, *, where: str) -> Any:
    if type(value) is not kind:  # not isinstance: True is no 1
        raise ValueError(f"{where}: got {value!r}; allowed: {kind.__name__}")
    return value


def _rebuild_tuple(args: tuple[Any, ...], values: list[Any], *, where: str) -> tuple[Any, ...]:
    kinds = [args[0]] * len(values) if args[-1] is Ellipsis else list(args)
    if len(kinds) != len(values):
        raise ValueError(f"{where}: got {len(values)} values; allowed: exactly {len(kinds)}")
    return tuple(_rebuild(k, v, where=f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, values, strict=True)))


def _rebuild_enum(kind: type[Enum], value: Any, *, where: str) -> Enum:
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(f"{where}: got {value!r}; allowed: {[member.value for member in kind]}") from error


def _rebuild_dataclass(cls: Any, value: Any, *, where: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(cls)}
    required = {
        n for n, f in known.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if not isinstance(value, dict) or set(value) - set(known) or required - set(value):
        got = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ValueError(f"{where}: got {got}; required keys {sorted(required)}, allowed keys {sorted(known)}")
    hints = _hints_of(cls)
    return cls(**{k: _rebuild(hints[k], v, where=f"{where}.{k}") for k, v in value.items()})
