"""Requests and answers held against the shapes that botocore's service models give them."""

import re
from collections.abc import Iterator
from typing import Any


def in_python(pattern: str) -> str:
    """Java's classes of letters, marks, blanks and signs, widely; its pairs for what lies beyond 16 bits; `$` with
    numbers after it is a slip of the models."""
    whole = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF").replace(r"\p{Print}", "[ -~]")
    signs = re.sub(r"\\p\{[PS]\}", r"!-/:-@\\[-`{-~", whole)
    return re.sub(r"\\p\{\w+\}", r"\\w\\s", signs).replace("${", "{")


def misfits(shape: Any, value: Any, where: str = "") -> Iterator[str]:
    """What of a request is longer, larger or otherwise written than its shape allows."""
    limits = shape.metadata
    size = len(value) if isinstance(value, (str, list, dict)) else value
    if isinstance(size, (int, float)) and not isinstance(value, bool):
        if "max" in limits and size > limits["max"]:
            yield f"{where} has {size}, allowed {limits['max']}"
        if "min" in limits and size < limits["min"]:
            yield f"{where} has {size}, asked for {limits['min']}"
    if isinstance(value, str) and "pattern" in limits and not re.fullmatch(in_python(limits["pattern"]), value):
        yield f"{where} is {value!r}, allowed {limits['pattern']}"
    if shape.type_name == "structure":
        for name, inner in value.items():
            yield from misfits(shape.members[name], inner, f"{where}.{name}")
    elif shape.type_name == "map":
        for name, inner in value.items():
            yield from misfits(shape.key, name, f"{where} key")
            yield from misfits(shape.value, inner, f"{where}[{name}]")
    elif shape.type_name == "list":
        for number, inner in enumerate(value):
            yield from misfits(shape.member, inner, f"{where}[{number}]")
