"""S3 as a store of blobs when the network and the service are in trouble; the contract itself: tests/contracts."""

import threading

import pytest

from aws_kit import FAULTS, at_random, forget_clients, make_bucket
from clearway.contracts.errors import ConfigError, Unavailable
from clearway.infra.aws import client as client_module
from clearway.infra.aws.client import client
from clearway.infra.aws.s3_storage import MULTIPART_BYTES, S3Storage, bucket_and_key
from clearway.infra.storage import join, open_storage

pytestmark = pytest.mark.slow


@pytest.fixture
def root(aws):
    return f"s3://{make_bucket()}/store"


def only(fault, *calls):
    """A plan with this fault at these calls."""
    return lambda number: fault if number in calls else ""


@pytest.mark.parametrize("fault", FAULTS)
def test_one_failed_call_is_nobodys_business(trouble, root, fault):
    storage = S3Storage()
    for number, name in enumerate(("a", "b", "c")):
        trouble.plan, trouble.num_calls = only(fault, 0), 0
        if number == 0:
            storage.write(join(root, name), b"x" * 5000)
        elif number == 1:
            assert storage.create(join(root, name), b"y" * 5000) is True
        else:
            assert storage.read(join(root, "a")) == b"x" * 5000
    trouble.plan, trouble.num_calls = only(fault, 0), 0
    assert storage.list(root) == [join(root, "a"), join(root, "b")]


def test_a_create_whose_answer_was_lost_is_known_to_be_ours(trouble, root):
    trouble.plan = only("lose", 0)
    assert S3Storage().create(join(root, "prize"), b"mine") is True
    trouble.plan = lambda _: ""
    assert S3Storage().create(join(root, "prize"), b"mine") is False
    assert S3Storage().read(join(root, "prize")) == b"mine"


@pytest.mark.parametrize(("share", "seed"), [(0.1, 1), (0.3, 2), (0.3, 3)])
def test_of_racing_creators_exactly_one_wins_in_trouble_too(trouble, root, share, seed):
    trouble.plan = at_random(share, seed=seed)
    won, gave_up = [], []

    def race(number, prize):
        try:
            if S3Storage().create(join(root, prize), str(number).encode()):
                won.append((prize, number))
        except Unavailable:
            gave_up.append((prize, number))

    for prize in ("one", "two", "three"):
        racers = [threading.Thread(target=race, args=(number, prize)) for number in range(4)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(60)
    trouble.plan = lambda _: ""
    for prize in ("one", "two", "three"):
        holder = int(S3Storage().read(join(root, prize)))
        winners = [number for name, number in won if name == prize]
        # Who gave up may have written without knowing it; nobody else may think he won.
        assert winners == [holder] or (winners == [] and (prize, holder) in gave_up)


@pytest.mark.parametrize(("fault", "words"), [("break", "gave up"), ("refuse", "gave up"), ("drop", "does not answer")])
def test_a_service_that_stays_in_trouble_is_unavailable(trouble, root, fault, words, monkeypatch):
    monkeypatch.setattr(client_module, "MAX_ATTEMPTS", 2)
    forget_clients()
    trouble.plan = lambda _: fault
    with pytest.raises(Unavailable, match=words):
        S3Storage().read(join(root, "a"))
    with pytest.raises(Unavailable, match=words):
        S3Storage().create(join(root, "a"), b"")


def test_a_large_blob_goes_in_parts_and_comes_back_whole(aws, root):
    data = bytes(MULTIPART_BYTES // 4096) * 4096 + b"end"
    S3Storage().write(join(root, "large"), data)
    assert S3Storage().read(join(root, "large")) == data


def test_a_bucket_that_is_not_there_is_said(aws):
    uri = "s3://no-such-bucket-anywhere/a"
    with pytest.raises(ConfigError, match=r"no-such-bucket-anywhere.*there is none"):
        S3Storage().write(uri, b"")
    with pytest.raises(ConfigError, match="there is none"):
        S3Storage().list(uri)


def test_without_credentials_the_error_says_what_to_give(aws, root, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    forget_clients()
    with pytest.raises(ConfigError, match="give it a role"):
        S3Storage().read(join(root, "a"))


def test_more_objects_than_one_call_takes_are_all_deleted(aws, root):
    bucket, key = bucket_and_key(join(root, "many"))
    for number in range(1005):
        client("s3").put_object(Bucket=bucket, Key=f"{key}/{number:04d}", Body=b"")
    assert len(S3Storage().list(join(root, "many"))) == 1005
    S3Storage().delete_tree(join(root, "many"))
    assert S3Storage().list(join(root, "many")) == []


@pytest.mark.parametrize("uri", ["s3://", "s3://bucket", "s3://bucket/", "file:///a", "bucket/key", ""])
def test_an_address_that_is_no_object_is_refused(uri):
    with pytest.raises(ConfigError, match="allowed: s3://bucket/key"):
        bucket_and_key(uri)


def test_a_store_root_in_s3_opens_it():
    assert isinstance(open_storage("s3://bucket/prefix"), S3Storage)
