"""The ledger decides by digests: skip, land, finish, or stop."""

from pathlib import Path

import pytest

from clearway.contracts.errors import BatchConflict
from clearway.infra.layout import Layout
from clearway.infra.storage import LocalStorage
from clearway.ingest.ledger import Entry, Step, landed_batches, newer_outside, next_step, read_entry, write_entry

ENTRY = Entry(batch_id="2024-01-01", digest="a" * 64, fingerprint="f" * 64, num_rows={"t": 3})


@pytest.mark.parametrize(
    ("entry", "published", "step"),
    [
        pytest.param(None, None, Step.LAND, id="new"),
        pytest.param(None, "b" * 64, Step.LAND, id="new_beside_an_orphan"),
        pytest.param(ENTRY, "a" * 64, Step.SKIP, id="same"),
        pytest.param(ENTRY, None, Step.FINISH, id="crashed_before_publishing"),
        pytest.param(ENTRY, "b" * 64, Step.FINISH, id="pointer_elsewhere"),
    ],
)
def test_next_step(entry: Entry | None, published: str | None, step: Step) -> None:
    assert next_step(entry, digest="a" * 64, published=published) is step


def test_other_bytes_stop_and_show_both_digests() -> None:
    with pytest.raises(BatchConflict) as caught:
        next_step(ENTRY, digest="c" * 64, published="a" * 64)
    assert "a" * 64 in str(caught.value)
    assert "c" * 64 in str(caught.value)


@pytest.mark.parametrize(
    ("landed", "window", "newer"),
    [
        pytest.param([], ["b"], [], id="first"),
        pytest.param(["a"], ["b"], [], id="in_order"),
        pytest.param(["a", "c"], ["b"], ["c"], id="late"),
        pytest.param(["a", "c"], ["b", "c"], [], id="same_window"),
        pytest.param(["c", "d"], ["b", "c"], ["d"], id="window_too_short"),
    ],
)
def test_a_batch_is_late_when_newer_ones_landed_outside_its_window(
    landed: list[str], window: list[str], newer: list[str]
) -> None:
    assert newer_outside(landed, "b", window=window) == newer


def test_the_first_line_counts(tmp_path: Path) -> None:
    storage, layout = LocalStorage(), Layout(tmp_path.as_uri(), "p")
    assert read_entry(storage, layout, ENTRY.batch_id) is None
    assert landed_batches(storage, layout) == []
    assert write_entry(storage, layout, ENTRY) == ENTRY
    second = Entry(batch_id=ENTRY.batch_id, digest="b" * 64, fingerprint="g" * 64, num_rows={})
    assert write_entry(storage, layout, second) == ENTRY
    assert read_entry(storage, layout, ENTRY.batch_id) == ENTRY
    assert landed_batches(storage, layout) == ["2024-01-01"]
