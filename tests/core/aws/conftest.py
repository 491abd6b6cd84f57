"""A troubled way to the service, and an account that `aws up` has made."""

import uuid
from collections.abc import Iterator

import pytest

from aws_kit import Trouble, at_endpoint, front, moto_server
from clearway.infra.aws.client import client
from clearway.infra.aws.installation import Installation
from clearway.infra.aws.stacks import OPTIONS, ORDER
from clearway.infra.clock import FakeClock


@pytest.fixture
def trouble(aws: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trouble]:
    """What stands between this process and AWS; quiet until it gets a plan."""
    trouble = Trouble()
    with front(aws, trouble) as endpoint:
        yield from (trouble for _ in at_endpoint(endpoint, monkeypatch))


@pytest.fixture(scope="session")
def empty_account() -> Iterator[str]:
    """Address of a moto server that no other test has left anything in: stacks make things by fixed names."""
    with moto_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def installed(empty_account: str) -> Iterator[dict[str, str]]:
    """The variables of an installation that stands, and is taken for AWS, while a module runs."""
    installation = Installation("clearway", clock=FakeClock(1.7e9))
    with pytest.MonkeyPatch.context() as patch:
        for _ in at_endpoint(empty_account, patch):
            name = uuid.uuid4().hex  # no stack: it stays when the installation goes
            pods = {"id": "eks", "type": "EKS", "info": {"eksInfo": {"namespace": name}}}
            cluster = client("emr-containers").create_virtual_cluster(name=name, containerProvider=pods)["id"]
            eks = {"VirtualCluster": cluster, "PodsRoleArn": "arn:aws:iam::123456789012:role/pods"}
            yield installation.up({"Team": "ops", **eks}, tags={"team": "ops"}, wanted=OPTIONS)
            assert installation.down(with_data=True) == list(reversed((*ORDER, *OPTIONS)))
