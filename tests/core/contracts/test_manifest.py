import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.manifest import FileEntry, Manifest, canonical_json, sha256_of

NAMES = st.lists(st.text("abc/._", min_size=1, max_size=8), unique=True, max_size=4)
FACTS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=4)


def entry(name: str, data: bytes = b"x") -> FileEntry:
    return FileEntry(name=name, num_rows=1, num_bytes=len(data), sha256=sha256_of(data))


@given(NAMES, FACTS)
def test_a_manifest_survives_its_json(names: list[str], facts: dict[str, object]) -> None:
    manifest = Manifest(files=tuple(entry(n) for n in sorted(names)), facts=facts)
    again = Manifest.from_json(manifest.to_json())
    assert (again, again.digest) == (manifest, manifest.digest)


@given(FACTS)
def test_the_digest_does_not_depend_on_the_order_of_facts(facts: dict[str, object]) -> None:
    turned = dict(reversed(facts.items()))
    assert Manifest(files=(), facts=facts).digest == Manifest(files=(), facts=turned).digest


def test_the_digest_is_the_sha256_of_the_stored_bytes() -> None:
    manifest = Manifest(files=(entry("a"),), facts={"rows": 1})
    assert manifest.digest == hashlib.sha256(manifest.to_json()).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        Manifest(files=(entry("b"),), facts={"rows": 1}),
        Manifest(files=(entry("a", b"y"),), facts={"rows": 1}),
        Manifest(files=(entry("a"),), facts={"rows": 2}),
        Manifest(files=(entry("a"), entry("b")), facts={"rows": 1}),
    ],
    ids=["name", "bytes", "facts", "more files"],
)
def test_any_change_changes_the_digest(other: Manifest) -> None:
    assert Manifest(files=(entry("a"),), facts={"rows": 1}).digest != other.digest


@pytest.mark.parametrize("names", [("b", "a"), ("a", "a")], ids=["unsorted", "twice"])
def test_files_are_listed_once_and_in_order(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="sorted and unique"):
        Manifest(files=tuple(entry(n) for n in names))


def test_rows_are_summed_over_files() -> None:
    assert Manifest(files=(entry("a"), entry("b"))).num_rows == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_canonical_json_has_no_form_for_what_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": value})


def test_canonical_json_is_ascii_sorted_and_dense() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == b'{"a":"\\u00e9","b":1}'
