"""Which batches are computed, from which history, in which job."""

from datetime import UTC, datetime

import pytest

from clearway.contracts.errors import ConfigError, DataError
from clearway.infra.raw_windows import LandedBatch
from clearway.preprocess.plan import check_same_rows, needs_of, rows_table, stretches_of
from clearway.product import LoadedProduct

WEEKS = ["2013-01-07", "2013-01-14", "2013-01-21", "2013-01-28", "2013-02-04"]


def landed(*batch_ids: str) -> list[LandedBatch]:
    return [LandedBatch(batch_id=b, digest=b[-1] * 64) for b in batch_ids]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_batch_needs_itself_and_the_batches_its_look_back_touches(flights: LoadedProduct) -> None:
    (need,) = needs_of(flights.spec, landed(*WEEKS), start=at("2013-02-04"), landed=WEEKS)
    # 15 days before 4 February is 20 January, a day of the week that starts on the 14th
    assert [b.batch_id for b in need.history] == ["2013-01-14", "2013-01-21", "2013-01-28", "2013-02-04"]
    assert (need.start, need.end) == (at("2013-02-04"), at("2013-02-11"))


def test_earlier_batches_of_the_window_are_look_back_only(flights: LoadedProduct) -> None:
    needs = needs_of(flights.spec, landed(*WEEKS), start=at("2013-01-28"), landed=WEEKS)
    assert [n.batch.batch_id for n in needs] == ["2013-01-28", "2013-02-04"]


def test_a_window_that_lacks_a_landed_look_back_batch_is_refused(flights: LoadedProduct) -> None:
    with pytest.raises(ConfigError, match="to batch 2013-01-14, which is landed but not in the raw window"):
        needs_of(flights.spec, landed(*WEEKS[2:]), start=at("2013-02-04"), landed=WEEKS)


def test_a_look_back_batch_that_never_landed_is_a_gap_in_the_data(flights: LoadedProduct) -> None:
    there = [w for w in WEEKS if w != "2013-01-21"]
    (need,) = needs_of(flights.spec, landed(*there), start=at("2013-02-04"), landed=there)
    assert [b.batch_id for b in need.history] == ["2013-01-14", "2013-01-28", "2013-02-04"]


def test_facts_change_with_any_batch_of_the_history_and_with_the_function(flights: LoadedProduct) -> None:
    batches = landed(*WEEKS)
    (need,) = needs_of(flights.spec, batches, start=at("2013-02-04"), landed=WEEKS)
    corrected = [LandedBatch(batch_id=b.batch_id, digest="e" * 64) if b.batch_id == WEEKS[1] else b for b in batches]
    (other,) = needs_of(flights.spec, corrected, start=at("2013-02-04"), landed=WEEKS)
    facts = need.facts(function="f", spec=flights.spec)
    assert facts != other.facts(function="f", spec=flights.spec)
    assert facts != need.facts(function="g", spec=flights.spec)
    assert facts == need.facts(function="f", spec=flights.spec)


@pytest.mark.parametrize(
    ("missing", "references", "jobs"),
    [
        pytest.param(WEEKS, "aaaaa", [WEEKS], id="neighbours"),
        pytest.param([WEEKS[0], WEEKS[1], WEEKS[4]], "aaaaa", [WEEKS[:2], WEEKS[4:]], id="gap"),
        pytest.param(WEEKS, "aabbb", [WEEKS[:2], WEEKS[2:]], id="other_reference_tables"),
    ],
)
def test_neighbours_with_equal_reference_tables_share_a_job(
    flights: LoadedProduct, missing: list[str], references: str, jobs: list[list[str]]
) -> None:
    needs = [
        n
        for n in needs_of(flights.spec, landed(*WEEKS), start=at(WEEKS[0]), landed=WEEKS)
        if n.batch.batch_id in missing
    ]
    found = stretches_of(flights.spec, needs, references=dict(zip(WEEKS, references, strict=True)))
    assert [[n.batch.batch_id for n in s.needs] for s in found] == jobs
    assert found[-1].since == found[-1].start - (at("2013-01-16") - at("2013-01-01"))


def test_the_row_table_is_the_one_with_key_and_clock(flights: LoadedProduct) -> None:
    assert rows_table(flights.spec) == "flights"


@pytest.mark.parametrize(("num_rows", "num_keys"), [(9, 9), (10, 9), (11, 10), (11, 11)])
def test_dropped_or_repeated_rows_are_refused(num_rows: int, num_keys: int) -> None:
    with pytest.raises(DataError, match="drops or repeats rows"):
        check_same_rows("b", num_rows=num_rows, num_keys=num_keys, num_expected=10)
    check_same_rows("b", num_rows=10, num_keys=10, num_expected=10)
