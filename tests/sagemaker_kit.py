"""A SageMaker endpoint in an account of its own, and stories of rollouts on it."""

import atexit
import contextlib
import functools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aws_kit import forget_clients, variables
from clearway.deploy import drive, gathering, machine
from clearway.infra.aws.client import client
from clearway.infra.aws.endpoint import SageMakerEndpoint, open_sagemaker
from clearway.infra.clock import Clock, FakeClock
from clearway.infra.environment import Environment, SageMaker
from clearway.product_rollout import Rollout as Settings
from clearway.product_rollout import Shadow, Watch
from sagemaker_account import Account
from sagemaker_server import Stage, sagemaker_server
from serving_kit import PRODUCT, ROW

NAME = "clearway-flights"
SETTINGS = SageMaker(
    endpoint=NAME,
    image="123456789012.dkr.ecr.us-east-1.amazonaws.com/clearway:1",
    role="arn:aws:iam::123456789012:role/clearway-serving",
    capture_pct=0,
    update_timeout_s=600.0,
    poll_s=5.0,
    metrics_delay_s=120.0,
)
# Shares and times for a service that counts by the minute.
PLAN = Settings(
    strategy="canary",
    steps_pct=(20.0, 50.0, 100.0),
    min_requests=100,
    min_step_s=120.0,
    max_step_s=1800.0,
    hold_s=600.0,
    error_margin=0.2,
    slow_margin=0.2,
    slow_s=0.05,
    dry_run=("score",),
    watch=Watch(min_s=120.0, min_requests=100),
)
# Copies of requests first, then all at once; needs captured answers (`capture_pct=100`).
SHADOW = PLAN.model_copy(update={"strategy": ("shadow", "blue_green"), "shadow": Shadow(min_rows=60, margin=0.2)})
POLL_S = 20.0


def at_sagemaker(env: Environment, **changes: Any) -> Environment:
    """`env` with its endpoint on SageMaker. `changes`: of section sagemaker."""
    return env.model_copy(
        update={
            "endpoint": env.endpoint.model_copy(update={"kind": "sagemaker"}),
            "sagemaker": SETTINGS.model_copy(update=changes),
            "release_store": env.release_store.model_copy(update={"lease_ttl_s": 1200.0}),
        }
    )


@functools.cache
def stage() -> Stage:
    """One server for all accounts of this process: a client of SageMaker costs a second to make."""
    opened = contextlib.ExitStack()
    atexit.register(opened.close)
    return opened.enter_context(sagemaker_server())


@contextlib.contextmanager
def opened_account(
    env: Environment, clock: Clock, *, home: Path, upstream: str = ""
) -> Iterator[tuple[Account, SageMakerEndpoint]]:
    """An empty account, served and taken for AWS, and the endpoint that `env` names in it."""
    account = Account(env, clock, home=home, upstream=upstream)
    stage().account = account
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(stage().address).items():
            patch.setenv(name, value)
        if upstream or client("sagemaker").meta.endpoint_url != stage().address:
            forget_clients()
        yield account, open_sagemaker(env, product=PRODUCT, clock=clock)
    account.close()


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that looks every POLL_S, which figures by the minute allow, a dead-man's time that fits, and retries of
    calls that wait for nobody."""
    monkeypatch.setattr(machine, "POLL_S", POLL_S)
    monkeypatch.setattr(gathering, "POLL_S", POLL_S)
    monkeypatch.setattr(drive, "DEAD_MAN_S", 3 * POLL_S)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)


class Street(FakeClock):
    """A clock during whose sleeps callers come, `per_s` of them."""

    def __init__(self, *, per_s: float = 3.0) -> None:
        super().__init__(1.7e9)
        self.account: Account | None = None
        self.per_s, self.answered, self.num_unanswered = per_s, list[str](), 0
        self.spoils: dict[str, float] = {}  # digest → share of callers' requests that it fails
        self._random, self._due = random.Random(3), 0.0  # noqa: S311

    def sleep(self, seconds: float) -> None:
        """In steps, so that callers come evenly and updates end between them."""
        while seconds > 0:
            step = min(seconds, 5.0)
            super().sleep(step)
            seconds -= step
            self._due += step * self.per_s
            while self._due >= 1:
                self._due -= 1
                self._call()

    def _call(self) -> None:
        if self.account is None or NAME not in self.account.endpoints:
            return
        if not any(self.account.endpoints[NAME].weights.values()):
            self.num_unanswered += 1
            return
        row = ROW | {"hour": self._random.choice([7.0, 8.0, 9.0])}
        self.answered.append(self.account.call(NAME, row, failing=self.spoils))
