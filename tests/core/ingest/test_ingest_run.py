"""Batches land once; whatever is wrong with a delivery is refused with its reason, and nothing published changes."""

import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from clearway.contracts.errors import BatchConflict, ConfigError
from clearway.contracts.verdict import Verdict
from clearway.infra.faults import InjectedFault
from clearway.infra.layout import Layout
from clearway.infra.raw_windows import open_batch, open_window
from clearway.infra.snapshots import current
from clearway.infra.storage import LocalStorage, open_storage, to_path

from .conftest import HEADER, Shop, line


def digests(shop: Shop) -> dict[str, str]:
    """Published digest of every batch."""
    storage, layout = open_storage(shop.env.store_root), Layout(shop.env.store_root, "shop")
    found = {f"2024-01-{day:02d}": current(storage, layout.batch(f"2024-01-{day:02d}")) for day in range(1, 10)}
    return {batch_id: snapshot.digest for batch_id, snapshot in found.items() if snapshot}


def test_a_window_lands_and_its_reference_names_every_batch(shop: Shop) -> None:
    shop.deliver_well(1, 2, 3)
    outputs = shop.ingest(1, 3)
    assert (outputs.verdict, outputs.num_batches, outputs.num_new) == (Verdict.PASS, 3, 3)
    assert outputs.end == "2024-01-04T00:00:00Z"
    storage, layout = open_storage(shop.env.store_root), Layout(shop.env.store_root, "shop")
    assert outputs.raw is not None
    window = open_window(storage, outputs.raw)
    assert [b.batch_id for b in window.batches] == ["2024-01-01", "2024-01-02", "2024-01-03"]
    sales = pq.read_table(to_path(open_batch(storage, layout, window.batches[1]).file_uri("sales.parquet")))
    assert sales["key"].to_pylist() == ["02-1", "02-2", "02-3"]
    assert sales["sold_at"][0].as_py() == datetime(2024, 1, 2, 11, tzinfo=UTC)


def test_delayed_rows_land_with_the_batch_in_which_they_are_known(shop: Shop) -> None:
    shop.deliver_well(1, 2)
    shop.ingest(1, 2)
    storage, layout = open_storage(shop.env.store_root), Layout(shop.env.store_root, "shop")
    keys = {}
    for batch_id in ("2024-01-01", "2024-01-02"):
        snapshot = current(storage, layout.batch(batch_id))
        assert snapshot is not None
        keys[batch_id] = pq.read_table(to_path(snapshot.file_uri("results.parquet")))["key"].to_pylist()
    assert keys == {"2024-01-01": [], "2024-01-02": ["01-1", "01-2", "01-3"]}


def test_the_same_bytes_again_change_nothing(shop: Shop) -> None:
    shop.deliver_well(1, 2)
    first = shop.ingest(1, 2)
    before = {p: p.stat().st_mtime_ns for p in shop.files("")}
    again = shop.ingest(1, 2)
    assert again.raw == first.raw
    assert again.num_new == 0
    assert {p: p.stat().st_mtime_ns for p in shop.files("")} == before


def test_rows_in_another_order_are_the_same_batch(shop: Shop) -> None:
    shop.deliver_well(1)
    first = shop.ingest(1, 1)
    shop.deliver(1, line(1, 3), line(1, 1), line(1, 2))
    assert shop.ingest(1, 1).raw == first.raw


def test_other_bytes_for_a_landed_batch_stop_with_both_digests(shop: Shop) -> None:
    shop.deliver_well(1)
    shop.ingest(1, 1)
    (landed,) = digests(shop).values()
    shop.deliver(1, line(1, 1), line(1, 2, amount="1e6"), line(1, 3))
    with pytest.raises(BatchConflict) as caught:
        shop.ingest(1, 1)
    assert landed in str(caught.value)
    assert str(caught.value).count("digest") == 1
    assert digests(shop) == {"2024-01-01": landed}


@pytest.mark.parametrize(
    ("header", "lines", "reason"),
    [
        pytest.param(HEADER, [], "0 rows, at least 2 declared (empty)", id="empty"),
        pytest.param(HEADER, [line(2, 1)], "1 rows, at least 2 declared (truncated)", id="truncated"),
        pytest.param(HEADER, [line(2, 1), line(2, 1)], "1 rows repeat the key key (duplicate_keys)", id="doubled"),
        pytest.param(
            "key,sold_at,amount", ["a,2024-01-02T10:00:00Z,1.0"] * 2, "column 'pieces' is missing", id="dropped"
        ),
        pytest.param(
            HEADER.replace("amount", "sum"), [line(2, 1), line(2, 2)], "column 'amount' is missing", id="renamed"
        ),
        pytest.param(HEADER, [line(2, 1), line(2, 2, pieces="two")], "(unreadable)", id="retyped"),
        pytest.param(
            HEADER,
            [line(2, 1), line(2, 2, amount="inf"), line(2, 3, amount="-Infinity")],
            "column 'amount' is infinite in 2 of 3 rows; allowed: finite numbers, or no value (infinite)",
            id="infinite",
        ),
        pytest.param(HEADER, [line(2, 1), ",2024-01-02T10:00:00Z,1.0,1"], "1 rows have no 'key'", id="nameless"),
    ],
)
def test_a_misshapen_batch_is_quarantined_with_its_reason(
    shop: Shop, header: str, lines: list[str], reason: str
) -> None:
    shop.deliver_well(1, 3)
    shop.ingest(1, 1)
    before = digests(shop)
    shop.deliver(2, *lines, header=header)
    outputs = shop.ingest(2, 2)
    assert outputs.verdict is Verdict.FAIL
    assert reason in outputs.reason
    assert outputs.raw is None
    assert digests(shop) == before
    (record,) = [p for p in shop.files("quarantine/2024-01-02") if p.name == "reason.json"]
    assert json.loads(record.read_text())["problems"]
    assert not [p for p in shop.files("ledger") if "01-02" in p.name]
    kept = shop.files("quarantine")
    shop.ingest(2, 2)
    assert shop.files("quarantine") == kept


def test_a_window_asks_the_ledger_once_what_it_holds(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """On S3 each listing reads the names of all batches that ever landed."""
    shop.deliver_well(*range(1, 7))
    shop.ingest(1, 1)
    listings, listed = [], LocalStorage.list
    monkeypatch.setattr(LocalStorage, "list", lambda self, prefix: listings.append(prefix) or listed(self, prefix))
    assert shop.ingest(1, 6).num_new == 5
    assert [prefix.rpartition("/")[2] for prefix in listings].count("ledger") == 1


def test_an_infinite_number_stops_its_own_batch_only(shop: Shop) -> None:
    shop.deliver_well(1, 3)
    shop.deliver(2, line(2, 1), line(2, 2, amount="Inf"), line(2, 3, amount="NaN"))
    outputs = shop.ingest(1, 3)
    assert outputs.verdict is Verdict.FAIL
    assert set(digests(shop)) == {"2024-01-01", "2024-01-03"}
    shop.deliver_well(2)
    assert shop.ingest(1, 3).verdict is Verdict.PASS


def test_an_unreadable_delivery_is_told_with_its_file(shop: Shop) -> None:
    shop.deliver(1, line(1, 1), line(1, 2, amount="12 kg"))
    reason = shop.ingest(1, 1).reason
    assert "sales-2024-01-01.csv: " in reason
    assert "'12 kg'" in reason


def test_rows_that_no_batch_will_hold_are_told(shop: Shop) -> None:
    night = "night,2024-01-02T00:30:00+02:00,9.5,1"  # the first of January in UTC
    shop.deliver_well(1)
    shop.deliver(2, line(2, 1), line(2, 2), night)
    outputs = shop.ingest(1, 2)
    told = "batch 2024-01-02: 1 of 3 rows of sales lie outside its interval (UTC) and are left out"
    assert (outputs.verdict, outputs.reason) == (Verdict.PASS, f"2 batches landed, 2 of them new; {told}")


def test_a_batch_refused_as_empty_says_where_its_rows_are(shop: Shop) -> None:
    shop.deliver(1, line(3, 1), line(3, 2), line(3, 3))
    reason = shop.ingest(1, 1).reason
    assert "0 rows, at least 2 declared (empty); 3 of 3 rows of sales lie outside its interval" in reason


def test_a_folder_in_place_of_a_file_is_a_mistake(shop: Shop) -> None:
    (shop.product.folder / "inbox" / "sales-2024-01-01.csv").mkdir()
    with pytest.raises(ConfigError, match=r"is a folder; allowed: a file; correct source\.files"):
        shop.ingest(1, 1)


def test_one_bad_batch_does_not_hold_up_the_others_of_its_window(shop: Shop) -> None:
    shop.deliver_well(1, 3)
    shop.deliver(2, line(2, 1))
    outputs = shop.ingest(1, 3)
    assert (outputs.verdict, outputs.num_batches) == (Verdict.FAIL, 2)
    assert set(digests(shop)) == {"2024-01-01", "2024-01-03"}


def test_a_refused_batch_lands_once_it_is_delivered_well(shop: Shop) -> None:
    shop.deliver(1, line(1, 1))
    assert shop.ingest(1, 1).verdict is Verdict.FAIL
    shop.deliver_well(1)
    assert shop.ingest(1, 1).verdict is Verdict.PASS


def test_an_extra_column_is_tolerated_and_dropped(shop: Shop) -> None:
    shop.deliver_well(1)
    first = shop.ingest(1, 1)
    shop.deliver(1, *(f"{line(1, n)},x" for n in (1, 2, 3)), header=f"{HEADER},clerk")
    assert shop.ingest(1, 1).raw == first.raw


def test_a_late_batch_is_quarantined(shop: Shop) -> None:
    shop.deliver_well(1, 3)
    shop.ingest(1, 1)
    shop.ingest(3, 3)
    shop.deliver_well(2)
    outputs = shop.ingest(2, 2)
    assert outputs.verdict is Verdict.FAIL
    assert "newer batches up to 2024-01-03 are landed already" in outputs.reason
    assert set(digests(shop)) == {"2024-01-01", "2024-01-03"}


def test_a_late_batch_lands_in_a_window_that_holds_the_newer_ones(shop: Shop) -> None:
    shop.deliver_well(1, 3)
    shop.ingest(1, 1)
    shop.ingest(3, 3)
    shop.deliver_well(2)
    outputs = shop.ingest(1, 3)
    assert (outputs.verdict, outputs.num_new) == (Verdict.PASS, 1)


def test_a_file_that_is_not_there_yet_is_waited_for(shop: Shop) -> None:
    shop.deliver_well(1)
    outputs = shop.ingest(1, 2)
    assert outputs.verdict is Verdict.INCONCLUSIVE
    assert "sales-2024-01-02.csv" in outputs.reason
    assert outputs.num_batches == 1
    assert not shop.files("quarantine")


@pytest.mark.parametrize("point", ["before_seal", "after_seal", "after_ledger", "before_window"])
def test_a_crash_anywhere_leaves_the_same_result_after_another_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    shop.deliver_well(1, 2)
    with monkeypatch.context() as patched:
        patched.setenv("CLEARWAY_FAULT", f"ingest.{point}=raise")
        patched.setattr("clearway.infra.faults._visits", __import__("collections").Counter())
        with pytest.raises(InjectedFault):
            shop.ingest(1, 2)
    crashed = shop.ingest(1, 2)
    after_crash = digests(shop)
    for path in shop.files(""):
        path.unlink()
    assert shop.ingest(1, 2).raw == crashed.raw
    assert digests(shop) == after_crash


@pytest.mark.parametrize(("first", "last"), [(2, 1), (5, 3)])
def test_a_window_without_a_whole_batch_is_refused(shop: Shop, first: int, last: int) -> None:
    with pytest.raises(ConfigError, match="no whole day"):
        shop.ingest(first, last)


def test_a_planted_fault_is_announced_in_the_manifest(
    shop: Shop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop.product.folder / "source.py").write_text(
        "def shape(raw):\n    return raw\n\n\ndef plant(fault, tables):\n"
        "    assert fault == 'half'\n    return {**tables, 'sales': tables['sales'].slice(1)}\n"
    )
    spec = shop.product.spec.model_copy(update={"shape": "source.py:shape"})
    planted = Shop(product=shop.product.model_copy(update={"spec": spec}), env=shop.env)
    shop.deliver_well(1, 2)
    store = shop.env.home / "store" / "shop"
    store.mkdir(parents=True)
    (store / "plant.json").write_text('{"fault": "half", "from": "2024-01-02"}')
    planted.ingest(1, 2)
    assert "PLANTED fault half in batch 2024-01-02" in caplog.text
    storage, layout = open_storage(shop.env.store_root), Layout(shop.env.store_root, "shop")
    facts = {}
    for batch_id in ("2024-01-01", "2024-01-02"):
        snapshot = current(storage, layout.batch(batch_id))
        assert snapshot is not None
        facts[batch_id] = (snapshot.manifest.facts.get("planted"), snapshot.manifest.num_rows)
    assert facts == {"2024-01-01": (None, 3), "2024-01-02": ("half", 5)}


def test_a_fault_is_never_planted_outside_the_local_environment(shop: Shop) -> None:
    shop.deliver_well(1)
    store = shop.env.home / "store" / "shop"
    store.mkdir(parents=True)
    (store / "plant.json").write_text('{"fault": "half", "from": "2024-01-01"}')
    elsewhere = Shop(product=shop.product, env=shop.env.model_copy(update={"name": "aws"}))
    with pytest.raises(ConfigError, match="planted locally only"):
        elsewhere.ingest(1, 1)
