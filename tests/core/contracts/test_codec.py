import dataclasses
import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.refs import DatasetRef
from clearway.contracts.verdict import Verdict

TEXT = st.text(max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    name: str
    share: float
    is_kept: bool
    verdict: Verdict
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    leaves: tuple[Leaf, ...]
    by_name: dict[str, Leaf]
    pair: tuple[int, str]
    dataset: DatasetRef | None
    params: dict[str, float] = field(default_factory=dict)


LEAVES = st.builds(Leaf, name=TEXT, share=NUMBERS, is_kept=st.booleans(), note=st.none() | TEXT)
REFS = st.builds(DatasetRef, uri=st.just("file:///x"), digest=st.text("0123456789abcdef", min_size=64, max_size=64))
TREES = st.builds(
    Tree,
    leaves=st.lists(LEAVES, max_size=3).map(tuple),
    by_name=st.dictionaries(TEXT, LEAVES, max_size=3),
    pair=st.tuples(st.integers(), TEXT),
    dataset=st.none() | REFS,
    params=st.dictionaries(TEXT, NUMBERS, max_size=3),
)


@given(TREES)
def test_a_value_survives_the_way_through_json_text(tree: Tree) -> None:
    text = json.dumps(to_jsonable(tree))
    assert from_jsonable(Tree, json.loads(text)) == tree


def leaf(**changes: object) -> dict[str, object]:
    return {"name": "a", "share": 0.5, "is_kept": True, "verdict": "pass", **changes}


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        (leaf(extra=1), "allowed keys"),
        ({"name": "a"}, "required keys ['is_kept', 'name', 'share', 'verdict']"),
        (leaf(name=3), "Leaf.name: got 3; allowed: str"),
        (leaf(share="0.5"), "Leaf.share: got '0.5'; allowed: float"),
        (leaf(share=True), "Leaf.share: got True; allowed: float"),
        (leaf(is_kept=1), "Leaf.is_kept: got 1; allowed: bool"),
        (leaf(verdict="maybe"), "Leaf.verdict: got 'maybe'; allowed: ['pass', 'fail', 'inconclusive', 'error']"),
        ("text", "Leaf: got str"),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: object, fragment: str) -> None:
    with pytest.raises(ValueError, match="Leaf") as caught:
        from_jsonable(Leaf, value)
    assert fragment in str(caught.value)


def test_a_whole_number_is_accepted_as_float() -> None:
    share = from_jsonable(Leaf, leaf(share=1)).share
    assert (share, type(share)) == (1.0, float)


def test_lists_are_not_confused_with_text_or_other_lengths() -> None:
    tree = to_jsonable(Tree(leaves=(), by_name={}, pair=(1, "a"), dataset=None))
    with pytest.raises(ValueError, match=r"Tree.leaves: got 'abc'; allowed: list"):
        from_jsonable(Tree, {**tree, "leaves": "abc"})
    with pytest.raises(ValueError, match=r"Tree.pair: got 3 values; allowed: exactly 2"):
        from_jsonable(Tree, {**tree, "pair": [1, "a", 2]})


def test_a_value_without_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match=r"set value .* has no JSON form"):
        to_jsonable({"a": {1, 2}})


def test_defaults_fill_what_an_older_writer_did_not_know() -> None:
    assert from_jsonable(Leaf, leaf()) == Leaf(name="a", share=0.5, is_kept=True, verdict=Verdict.PASS, note=None)
    assert {f.name for f in dataclasses.fields(Leaf)} == set(to_jsonable(from_jsonable(Leaf, leaf())))
