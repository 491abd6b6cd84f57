"""What every release store owes its callers.

Implementations: SQLite; DynamoDB as moto knows it; PostgreSQL where a server is named:
CLEARWAY_TEST_POSTGRES_URL=postgresql+psycopg2://… adds the last one.
"""

import dataclasses
import os
import subprocess
import sys
import threading

import pytest

from aws_kit import make_table
from clearway.contracts.errors import CompareAndSwapFailed, ConfigError, DataError, Unavailable
from clearway.contracts.release_document import HistoryEntry as Entry
from clearway.contracts.release_document import Lease, Outcome, Phase, ReleaseDocument, Version
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.infra.sql_release_store import SqlReleaseStore

FULL = ReleaseDocument(
    product="flights",
    champion=Version(uri="file:///m/ü", digest="a" * 64, release_id="r1"),
    previous=Version(uri="s3://b/m", digest="b" * 64, release_id="r0"),
    candidate=Version(uri="s3://b/c", digest="c" * 64, release_id="r2"),
    weight_pct=12.5,
    phase=Phase.ABORTING,
    release_id="r2",
    reason="says 'no' \N{SNOWMAN}",
    ending=Outcome.SUPERSEDED,
    order_id="o1",
    epoch=7,
    lease=Lease(holder="r2", expires_s=1e9 + 0.25),
    history=(
        Entry(
            release_id="r1", outcome=Outcome.PROMOTED, before=None, after="a" * 64, at_s=1.5, reason="x", candidate="a"
        ),
    ),
)


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("dynamodb", marks=pytest.mark.slow)])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'deep' / 'er' / 'release.db'}"
    if request.param == "dynamodb":
        request.getfixturevalue("aws")
        return f"dynamodb://{make_table()}"
    named = os.environ.get("CLEARWAY_TEST_POSTGRES_URL")
    if not named:
        pytest.skip("no PostgreSQL named; set CLEARWAY_TEST_POSTGRES_URL to test against one")
    return named


def store_at(url):
    return open_release_store(Environment.load({"CLEARWAY__RELEASE_STORE__URL": url}))


def product(url, name):
    return name if url.startswith("sqlite") else f"{name}_{os.urandom(4).hex()}"


def test_an_unknown_product_has_a_fresh_document_at_version_zero(url):
    assert store_at(url).read("nobody") == (ReleaseDocument(product="nobody"), 0)


def test_every_field_comes_back_as_it_was_stored(url):
    store, name = store_at(url), product(url, "flights")
    document = dataclasses.replace(FULL, product=name)
    assert store.swap(document, expected_version=0) == 1
    assert store.read(name) == (document, 1)
    assert store_at(url).read(name) == (document, 1)


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_write_against_another_version_changes_nothing(url, expected):
    store, name = store_at(url), product(url, "p")
    document = ReleaseDocument(product=name)
    store.swap(document, expected_version=0)
    store.swap(document, expected_version=1)
    with pytest.raises(CompareAndSwapFailed, match=f"no longer at version {expected}"):
        store.swap(dataclasses.replace(document, epoch=9), expected_version=expected)
    assert store.read(name) == (document, 2)


def test_products_do_not_touch_each_other(url):
    store, one, two = store_at(url), product(url, "one"), product(url, "two")
    store.swap(ReleaseDocument(product=one, epoch=1), expected_version=0)
    store.swap(ReleaseDocument(product=two, epoch=2), expected_version=0)
    assert store.read(one)[0].epoch == 1
    assert store.read(two)[0].epoch == 2


def test_of_many_racing_threads_each_version_has_one_winner(url):
    name, wins, num_threads = product(url, "race"), [], 8
    barrier = threading.Barrier(num_threads)

    def work(number):
        store = store_at(url)
        barrier.wait(120)
        for version in range(5):
            try:
                store.swap(ReleaseDocument(product=name, epoch=number), expected_version=version)
                wins.append(version)
            except CompareAndSwapFailed:
                pass
            while store.read(name)[1] <= version:
                pass

    threads = [threading.Thread(target=work, args=(n,)) for n in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(wins) == [0, 1, 2, 3, 4]


TAKE_EPOCHS = """
import sys
from clearway.contracts.errors import CompareAndSwapFailed
from clearway.contracts.release_document import take_lease
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
url, name, holder, num_takes = sys.argv[1:]
store, num_taken = open_release_store(Environment.load({"CLEARWAY__RELEASE_STORE__URL": url})), 0
while num_taken < int(num_takes):
    document, version = store.read(name)
    owned = take_lease(document, holder=holder, now_s=0, ttl_s=0, is_seized=True)
    try:
        store.swap(owned, expected_version=version)
    except CompareAndSwapFailed:
        continue
    num_taken += 1
    print(owned.epoch)
"""


def test_two_processes_never_get_the_same_epoch(url):
    name = product(url, "epochs")
    commands = [[sys.executable, "-c", TAKE_EPOCHS, url, name, f"h{i}", "15"] for i in range(2)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    epochs = [int(line) for worker in workers for line in worker.communicate(timeout=60)[0].split()]
    assert sorted(epochs) == list(range(1, 31))


def test_a_store_that_cannot_be_opened_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("no database")
    with pytest.raises(Unavailable, match="does not answer"):
        SqlReleaseStore(f"sqlite:///{tmp_path}").read("p")


def test_a_damaged_file_is_named_and_not_retried(tmp_path):
    (tmp_path / "release.db").write_bytes(b"no database " * 500)
    with pytest.raises(DataError, match=r"release\.db is damaged: file is not a database; restore it"):
        SqlReleaseStore(f"sqlite:///{tmp_path / 'release.db'}").read("p")


@pytest.mark.parametrize("url", ["no url", "nosuch://host/db", "oracle://host/db"])
def test_an_address_that_nothing_can_open_is_a_mistake_in_the_settings(url):
    with pytest.raises(ConfigError, match=r"allowed: sqlite:.*CLEARWAY__RELEASE_STORE__URL"):
        SqlReleaseStore(url)


def test_a_folder_that_cannot_be_made_is_unavailable():
    with pytest.raises(Unavailable, match="does not answer"):
        SqlReleaseStore("sqlite:////proc/none/x.db").read("p")
