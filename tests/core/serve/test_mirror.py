"""The log of mirrored rows: bounded, numbered, dropped rather than waited for."""

import asyncio
from types import SimpleNamespace

import pytest

from clearway.infra.endpoint import Mirror
from clearway.serve import mirror as module
from clearway.serve.children import Failed, Full
from clearway.serve.mirror import Mirroring
from clearway.serve.refusal import Refusal

CANDIDATE = SimpleNamespace(digest="c")
MIRROR = Mirror(digest="c", columns=("k",))


def mirrored(ask, offers, *, control="s", mirroring=None, **reading):
    """Offer requests to a log, wait until all copies are answered, and read it."""
    mirroring = mirroring or Mirroring(process_id="p", ask=ask)

    async def run():
        for rows, scores in offers:
            mirroring.offer(MIRROR, CANDIDATE, control, rows, scores)
        await mirroring.settle()

    asyncio.run(run())
    return mirroring.read(**{"first": 0, "at_s": 1.0, "epoch": 2} | reading)


async def half(candidate, rows):
    return [0.5] * len(rows)


def test_differences_are_candidate_minus_control_per_row_with_their_slices():
    seen = mirrored(half, [([{"k": "a"}, {"k": None}], [0.25, 0.75]), ([{"k": 3}], [0.5])])
    assert [row.difference for row in seen.rows] == [0.25, -0.25, 0.0]
    assert [row.slices for row in seen.rows] == [("k=a",), ("k=None",), ("k=3",)]
    assert (seen.log_id, seen.first, seen.candidate, seen.control, seen.num_dropped) == ("p-1", 0, "c", "s", 0)


def test_a_score_beyond_probability_differs_by_the_most_there_can_be():
    async def wild(candidate, rows):
        return [7.0, -7.0]

    assert [row.difference for row in mirrored(wild, [([{}, {}], [0.5, 0.5])]).rows] == [1.0, -1.0]


@pytest.mark.parametrize("error", [Refusal(422, "bad_value", "x"), Failed("gone"), RuntimeError("model")], ids=repr)
def test_a_candidate_that_fails_leaves_rows_without_a_difference(error):
    async def fail(candidate, rows):
        raise error

    assert [row.difference for row in mirrored(fail, [([{}, {}], [0.5, 0.5])]).rows] == [None, None]


def test_what_the_candidate_cannot_keep_up_with_is_dropped_and_counted(monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    seen = mirrored(half, [([{}], [0.5])] * 5)
    assert (len(seen.rows), seen.num_dropped) == (2, 3)

    async def full(candidate, rows):
        raise Full("x")

    seen = mirrored(full, [([{}], [0.5])])
    assert (len(seen.rows), seen.num_dropped) == (0, 1)


def test_old_rows_make_room_and_the_reader_sees_the_gap(monkeypatch):
    monkeypatch.setattr(module, "MAX_KEPT_ROWS", 4)
    monkeypatch.setattr(module, "MAX_ROWS_PER_READING", 3)
    mirroring = Mirroring(process_id="p", ask=half)
    seen = mirrored(half, [([{"k": i}], [0.5]) for i in range(10)], mirroring=mirroring)
    assert (seen.first, [row.slices for row in seen.rows]) == (6, [("k=6",), ("k=7",), ("k=8",)])
    assert [row.slices for row in mirroring.read(first=9, at_s=1.0, epoch=2).rows] == [("k=9",)]
    assert mirroring.read(first=99, at_s=1.0, epoch=2).first == 10


def test_another_pair_of_versions_begins_another_log():
    mirroring = Mirroring(process_id="p", ask=half)
    mirrored(half, [([{}], [0.5])] * 3, mirroring=mirroring)
    seen = mirrored(half, [([{}], [0.5])], control="t", mirroring=mirroring)
    assert (seen.log_id, seen.first, len(seen.rows), seen.control) == ("p-2", 0, 1, "t")


def test_nothing_mirrored_is_an_empty_log():
    seen = Mirroring(process_id="p", ask=half).read(first=0, at_s=1.0, epoch=2)
    assert (seen.candidate, seen.rows, seen.first) == ("", (), 0)
