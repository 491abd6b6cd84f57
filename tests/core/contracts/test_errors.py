import inspect
import re

import pytest

from clearway.contracts import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.ClearwayError)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_the_drawn_tree_says_what_the_class_does(cls: type[errors.ClearwayError]) -> None:
    if cls is errors.ClearwayError:
        return
    parent = next(base for base in cls.__mro__[1:] if issubclass(base, errors.ClearwayError))
    line = next(line for line in (errors.__doc__ or "").splitlines() if re.search(rf"─ {cls.__name__}\b", line))
    depth = line.index(cls.__name__)
    assert depth == (4 if parent is errors.ClearwayError else 8)
    if parent is errors.ClearwayError:
        assert cls.is_retryable is not line.rstrip().endswith("not retryable")


def test_a_mistake_in_text_is_also_a_value_error() -> None:
    assert issubclass(errors.ConfigError, ValueError)


def test_only_what_may_heal_by_itself_is_retried() -> None:
    retried = {c.__name__ for c in CLASSES if c.is_retryable}
    assert retried == {"LeaseHeld", "CompareAndSwapFailed", "JobFailed", "Unavailable"}
