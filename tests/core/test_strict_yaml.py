from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.errors import ConfigError
from clearway.strict_yaml import MAX_BYTES, MAX_DEPTH, parse_yaml, read_yaml

PATH = Path("some/product.yaml")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz_", min_size=1), inner, max_size=4),
    max_leaves=12,
)


def parse(text: str) -> Any:
    return parse_yaml(text.encode(), path=PATH).value


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


@given(VALUES)
def test_what_a_yaml_writer_writes_is_read_back(value: Any) -> None:
    assert parse(yaml.dump(value, Dumper=_NoAliases, allow_unicode=True)) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("NO", "NO"),
        ("on", "on"),
        ("true", True),
        ("False", "False"),
        ("~", None),
        ("", None),
        ("null", None),
        ("12", 12),
        ("-3", -3),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("1:30", "1:30"),
        ("2013-01-07", "2013-01-07"),
        ('"12"', "12"),
        ("'true'", "true"),
        ("nan", "nan"),
    ],
)
def test_plain_words_mean_what_they_look_like(text: str, expected: object) -> None:
    found = parse(f"a: {text}\n")["a"]
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("text", "line", "fragment"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "key 'a' twice, first on line 1; allowed: each key once"),
        ("a:\n  b: 1\n  b: 2\n", 3, "key 'b' twice, first on line 2"),
        ("a: 1\nb: !!python/object/apply:os.system [x]\n", 2, "tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("a: !!str 1\n", 1, "tag 'tag:yaml.org,2002:str'; allowed: plain values without tags"),
        ("a: &x 1\n", 1, "anchor &x"),
        ("a: 1\nb: *x\n", 2, "alias *x; allowed: the value written out"),
        ("<<: {a: 1}\n", 1, "merge key '<<'"),
        ("? [a]\n: 1\n", 1, "a list or mapping as key"),
        ("a: 1\n---\nb: 1\n", 2, "a second document"),
        ("a: 1\nb: .nan\n", 2, "b = .nan; allowed: finite numbers"),
        ("a: [1, -.inf]\n", 1, "a.1 = -.inf"),
        ("a: 1e999\n", 1, "a = 1e999"),
        ("a: 1\nb: [1\nc: 2\n", 3, "is no YAML"),
        ("a: 1\n\tb: 2\n", 2, "is no YAML"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), 1, f"allowed: at most {MAX_DEPTH}"),
    ],
)
def test_what_could_mislead_is_refused_with_its_line(text: str, line: int, fragment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"some/product.yaml:{line}: ")
    assert fragment in str(caught.value)


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
    with pytest.raises(ConfigError, match=r":1: has anchor &a0"):
        parse(f"a0: &a0 [1]\n{levels}")


def test_deep_nesting_costs_no_stack() -> None:
    with pytest.raises(ConfigError, match="nesting"):
        parse("[" * 100_000)


def test_huge_files_and_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"allowed: at most {MAX_BYTES}"):
        parse_yaml(b"#" * (MAX_BYTES + 1), path=PATH)
    with pytest.raises(ConfigError, match="not UTF-8"):
        parse_yaml(b"a: \xff", path=PATH)
    with pytest.raises(ConfigError, match=r"nothing\.yaml does not exist"):
        read_yaml(tmp_path / "nothing.yaml")


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_value_or_a_config_error(data: bytes) -> None:
    try:
        parse_yaml(data, path=PATH)
    except ConfigError as error:
        assert str(error).startswith("some/product.yaml")


def test_every_path_knows_its_line() -> None:
    text = parse_yaml(b"# comment\na:\n  b:\n    - x\n    - c: 1\n", path=PATH)
    assert text.line_of(("a",)) == 2
    assert text.line_of(("a", "b", 1, "c")) == 5
    assert text.line_of(("a", "b", "nothing")) == 3
    assert parse_yaml(b"", path=PATH).line_of(("x",)) == 1
