"""DynamoDB as the release store when answers get lost; the contract itself: tests/contracts."""

import threading

import pytest

from aws_kit import FAULTS, at_random, forget_clients, make_table
from clearway.contracts.errors import CompareAndSwapFailed, ConfigError, Unavailable
from clearway.contracts.release_document import ReleaseDocument
from clearway.infra.aws import client as client_module
from clearway.infra.aws.dynamo_release_store import MAX_DOCUMENT_BYTES, DynamoReleaseStore

pytestmark = pytest.mark.slow


@pytest.fixture
def url(aws):
    return f"dynamodb://{make_table()}"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_whose_first_attempt_fails_counts_once(trouble, url, fault):
    store = DynamoReleaseStore(url)
    for version in range(3):
        trouble.plan, trouble.num_calls = (lambda number: fault if number == 0 else ""), 0
        assert store.swap(ReleaseDocument(product="p", epoch=version), expected_version=version) == version + 1
    trouble.plan = lambda _: ""
    assert store.read("p") == (ReleaseDocument(product="p", epoch=2), 3)


@pytest.mark.parametrize(("share", "seed"), [(0.1, 1), (0.3, 2)])
def test_epochs_counted_by_racers_in_trouble_are_counted_once(trouble, url, share, seed):
    trouble.plan = at_random(share, seed=seed)
    taken, unsure = [], []

    def count(number):
        store, num_left = DynamoReleaseStore(url), 5
        while num_left:
            try:
                _, version = store.read("p")
            except Unavailable:
                continue
            mine = ReleaseDocument(product="p", epoch=version + 1, reason=str(number))
            try:
                store.swap(mine, expected_version=version)
            except CompareAndSwapFailed:
                continue
            except Unavailable:
                unsure.append(mine.epoch)
                continue
            taken.append(mine.epoch)
            num_left -= 1

    racers = [threading.Thread(target=count, args=(number,)) for number in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
    assert len(taken) == len(set(taken)) == 15
    trouble.plan = lambda _: ""
    _, version = DynamoReleaseStore(url).read("p")
    assert set(range(1, version + 1)) <= set(taken) | set(unsure)


def test_a_service_that_stays_in_trouble_is_unavailable(trouble, url, monkeypatch):
    monkeypatch.setattr(client_module, "MAX_ATTEMPTS", 2)
    forget_clients()
    trouble.plan = lambda _: "break"
    with pytest.raises(Unavailable, match="gave up"):
        DynamoReleaseStore(url).read("p")


def test_a_table_that_is_not_there_is_said(aws):
    with pytest.raises(ConfigError, match=r"no-such-table.*there is none"):
        DynamoReleaseStore("dynamodb://no-such-table").read("p")


def test_a_document_too_large_for_an_item_is_refused_before_it_is_sent(url):
    with pytest.raises(ConfigError, match=f"allowed: {MAX_DOCUMENT_BYTES}"):
        DynamoReleaseStore(url).swap(ReleaseDocument(product="p", reason="x" * 400_000), expected_version=0)


@pytest.mark.parametrize("url", ["dynamodb://", "dynamodb://a/b", "sqlite:///x"])
def test_an_address_that_is_no_table_is_refused(url):
    with pytest.raises(ConfigError, match="dynamodb://<table>"):
        DynamoReleaseStore(url)
