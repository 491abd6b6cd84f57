"""The machines of one training that a service started together: which one this is, and the line between them.

Each is started with the same stage. The first one runs it. It opens a port; the others prepare the same rows, call
there, say what they are about to train, and wait for the word. What is said, a JSON document per line:

    other → first   hello: its name, the identity of its job        (or end: why it cannot)
    first → other   go: where the processes of this round meet
    other → first   end: how its processes ended
    first → other   go, for another round from the last checkpoint; or over, with a reason if it failed

A line that closes says that the machine is gone; the kernel asks a silent one every few seconds. While processes train
nobody listens: one that is lost is missed at the next exchange, at the latest after `collective_timeout_s`.
"""

import json
import logging
import os
import re
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from clearway.contracts.errors import ConfigError, JobFailed
from clearway.infra.clock import SystemClock
from clearway.infra.environment import Training

LOG = logging.getLogger("clearway.train")
T = TypeVar("T")
BATCH, _NODES = "batch", ("MAIN_NODE_INDEX", "NODE_INDEX")
MAX_LINE_BYTES = 1 << 16
# A machine that says nothing to the kernel for 10 + 3 × 5 s is gone; nobody waits for the hours that Linux would.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
_CALL_AGAIN_S = 0.5
# A first machine that fails waits this long for others that are about to call: else they would call for minutes.
LINGER_S = 30.0
# What a process says whose peers are gone: some other one failed first.
_HEARSAY = re.compile(
    r"gloo|NCCL|Dist\w*Error|Connection (reset|refused|closed)|Broken pipe|timed? ?out", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """This machine among those of the training. `address`: of the one that runs the stage, "" for its name."""

    index: int
    names: tuple[str, ...]
    address: str = ""

    @property
    def is_first(self) -> bool:
        return self.index == 0

    @property
    def name(self) -> str:
        return self.names[self.index]

    @property
    def first(self) -> str:
        return self.names[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Where the processes of one round meet: an address of the first machine, and a port there that was free."""

    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the processes of one machine ended. `reason`: "" if all went well; `can_repeat`: they died, nobody asked."""

    reason: str = ""
    can_repeat: bool = False
    at_s: float = 0.0


def place_of(asked: Training, variables: Mapping[str, str] = os.environ) -> Place | None:
    """None for a machine alone. `variables`: of this process, which are what Batch tells a node by.

    Raises: ConfigError for hosts that are not written as SageMaker or Batch write them.
    """
    if not asked.hosts:
        return None
    place = _place_in_batch(variables) if asked.hosts == BATCH else _place_in_file(Path(asked.hosts))
    return place if len(place.names) > 1 else None


def _place_in_file(path: Path) -> Place:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        names, own = sorted(found["hosts"]), found["current_host"]
        return Place(index=names.index(own), names=tuple(names))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} does not say who the machines of this training are: {error!r}; wanted: JSON with "
            '"current_host" and "hosts", as SageMaker writes it'
        ) from error


def _place_in_batch(variables: Mapping[str, str]) -> Place:
    """The main node is the first one; only the others are told its address."""
    try:
        count, main, own = (int(variables[f"AWS_BATCH_JOB_{name}"]) for name in ("NUM_NODES", *_NODES))
        address = "" if own == main else variables["AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS"]
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"training.hosts is {BATCH!r} and Batch does not say which node this is: {error!r}; order it as a "
            "multi-node parallel job"
        ) from error
    order = [main, *(number for number in range(count) if number != main)]
    names = tuple(f"node {number}" for number in order)
    return Place(index=order.index(own), names=names, address=address)


class Line:
    """A connection on which whole JSON documents are said."""

    def __init__(self, connection: socket.socket, *, name: str) -> None:
        self.name, self._socket, self._rest = name, connection, b""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            if hasattr(socket, option):  # Linux
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def own_address(self) -> str:
        """Of this machine, as the other one sees it."""
        return str(self._socket.getsockname()[0])

    def say(self, word: str, **more: Any) -> None:
        """Raises: JobFailed if nobody hears it any more."""
        try:
            self._socket.sendall(json.dumps({"word": word, **more}).encode() + b"\n")
        except OSError as error:
            raise self._gone(error) from error

    def hear(self, *, timeout_s: float | None) -> Mapping[str, Any]:
        """The next document. Raises: JobFailed if the other machine is gone or says nothing for so long."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            left = None if deadline_s is None else max(0.001, deadline_s - time.monotonic())
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(MAX_LINE_BYTES)
            except TimeoutError as error:
                raise JobFailed(f"machine {self.name} said nothing for {timeout_s:g} s; run the task again") from error
            except OSError as error:
                raise self._gone(error) from error
            if not data:
                raise self._gone(None)
            self._rest += data
            if len(self._rest) > MAX_LINE_BYTES:
                raise JobFailed(f"{self.name} says more than {MAX_LINE_BYTES} bytes at once, so it is none of ours")
        text, _, self._rest = self._rest.partition(b"\n")
        try:
            said: Mapping[str, Any] = json.loads(text)
            said["word"]
        except (ValueError, TypeError, KeyError) as error:
            raise JobFailed(f"{self.name} says {text[:80]!r}, so it is none of ours") from error
        return said

    def close(self) -> None:
        self._socket.close()

    def _gone(self, error: OSError | None) -> JobFailed:
        return JobFailed(f"machine {self.name} is gone ({error or 'it hung up'}); run the task again, it resumes")


@dataclass(slots=True, kw_only=True)
class First:
    """The first machine's end of all lines."""

    place: Place
    asked: Training
    server: socket.socket
    lines: list[Line] = field(default_factory=list)

    def gather(self, identity: str) -> None:
        """Wait until all are here and about to train the same.

        Raises: JobFailed with the reason of one that is not, or with the names of those that did not come.
        """
        deadline_s = time.monotonic() + self.asked.join_timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.server, selectors.EVENT_READ)
            while len(self.lines) < len(self.place.names) - 1:
                ready = selector.select(max(0.0, deadline_s - time.monotonic()))
                if not ready:
                    raise JobFailed(self._absent())
                for key, _ in ready:
                    if key.fileobj is self.server:
                        selector.register(self._welcomed(identity, deadline_s), selectors.EVENT_READ)
                    else:  # one that waits says nothing, unless it ends
                        raise _as_failure(key.fileobj.hear(timeout_s=1.0), key.fileobj.name)  # type: ignore[union-attr]

    def train(self, run: Callable[[Meeting], T], *, max_restarts: int) -> T:
        """`run` here and on all others at once, again from the last checkpoint as long as processes die.

        `run` raises Died if processes of this machine did. Raises: JobFailed with what failed first; what `run` raises.
        """
        for number in range(max_restarts + 1):
            meeting = Meeting(address=self.lines[0].own_address, port=_free_port())
            for line in self.lines:
                line.say("go", address=meeting.address, port=meeting.port)
            found, own = None, Ended()
            try:
                found = run(meeting)
            except Died as error:
                own = Ended(reason=str(error), can_repeat=True, at_s=error.at_s)
            except JobFailed as error:
                raise JobFailed(_together(str(error), self._reports())) from error
            reports = self._reports()
            if found is not None:
                return found
            failed = {self.place.name: own} | {name: ended for name, ended in reports.items() if ended.reason}
            name = first_of(failed)
            if not all(ended.can_repeat for ended in failed.values()) or number == max_restarts:
                times = "" if number == 0 else f" for the {number + 1}. time"
                raise JobFailed(f"machine {name} failed first{times}: {failed[name].reason}; run the task again")
            LOG.warning("machine %s failed first: %s; all start again", name, failed[name].reason)
        raise AssertionError("unreachable")

    def dismiss(self, reason: str) -> None:
        """Tell all how it ended; after a failure also those that were not here yet, if they come soon."""
        deadline_s = time.monotonic() + LINGER_S
        while reason and len(self.lines) < len(self.place.names) - 1 and time.monotonic() < deadline_s:
            self.server.settimeout(max(0.001, deadline_s - time.monotonic()))
            with suppress(TimeoutError):
                self._accepted()
        for line in self.lines:
            with suppress(JobFailed):  # it is gone already
                line.say("over", reason=reason[: MAX_LINE_BYTES // 2])
            line.close()

    def _accepted(self) -> Line:
        connection, (address, *_) = self.server.accept()
        line = Line(connection, name=address)
        self.lines.append(line)
        return line

    def _welcomed(self, identity: str, deadline_s: float) -> Line:
        line = self._accepted()
        said = line.hear(timeout_s=max(0.001, deadline_s - time.monotonic()))
        line.name = str(said.get("name", line.name))
        if said["word"] != "hello":
            raise _as_failure(said, line.name)
        if said.get("identity") != identity:
            raise JobFailed(
                f"machine {line.name} would train job {said.get('identity')}, {self.place.name} trains {identity}: "
                "other code, libraries or processors; give all machines one image and one size"
            )
        return line

    def _reports(self) -> dict[str, Ended]:
        """How it ended on the others: processes leave at most `collective_timeout_s` after each other."""
        found, deadline_s = {}, time.monotonic() + 2 * self.asked.collective_timeout_s + _SHUTDOWN_S
        for line in self.lines:
            try:
                said = line.hear(timeout_s=max(0.001, deadline_s - time.monotonic()))
                found[line.name] = Ended(
                    reason=str(said.get("reason", "")),
                    can_repeat=bool(said.get("can_repeat")),
                    at_s=float(said.get("at_s", 0.0)),
                )
            except JobFailed as error:
                found[line.name] = Ended(reason=str(error), at_s=0.0)
        return found

    def _absent(self) -> str:
        there = {line.name for line in self.lines} | {self.place.name}
        absent = ", ".join(name for name in self.place.names if name not in there)
        return (
            f"{len(self.place.names) - len(there)} of {len(self.place.names)} machines did not come within "
            f"{self.asked.join_timeout_s:g} s, of {absent}; look at their logs, and whether they can reach each other"
        )


class Died(JobFailed):
    """Processes of this machine died. `at_s`: Unix seconds."""

    def __init__(self, text: str, *, at_s: float = 0.0) -> None:
        super().__init__(text)
        self.at_s = at_s


# An agent gives its processes this long to leave before it kills them; torch's default.
_SHUTDOWN_S = 30.0


@contextmanager
def lead(place: Place, asked: Training) -> Iterator[First]:
    """Let the others call, from here to the end of the block; then they hear how it ended."""
    with socket.create_server(("", asked.port), backlog=len(place.names)) as server:
        first = First(place=place, asked=asked, server=server)
        try:
            yield first
        except Exception as error:
            first.dismiss(f"{type(error).__name__}: {error}")
            raise
        first.dismiss("")


def follow(place: Place, asked: Training, *, prepare: Callable[[], str], run: Callable[[Meeting], None]) -> None:
    """A further machine: prepare, then train whenever the first one says so, until it says that it is over.

    `prepare` returns the identity of the job, "" if there is nothing to do.

    Raises: what `prepare` raises; JobFailed if here or there something failed, or the first machine is gone.
    """
    try:
        identity = prepare()
    except Exception as error:
        with suppress(JobFailed), _called(place, asked) as line:
            line.say("end", name=place.name, reason=f"{type(error).__name__}: {error}")
            line.hear(timeout_s=asked.collective_timeout_s)  # a machine that ends takes the first one with it
        raise
    if not identity:
        return
    with _called(place, asked) as line:
        line.say("hello", name=place.name, identity=identity)
        while (said := line.hear(timeout_s=None))["word"] == "go":
            ended = _one_round(run, Meeting(address=str(said["address"]), port=int(said["port"])))
            line.say("end", reason=ended.reason, can_repeat=ended.can_repeat, at_s=ended.at_s)
        if said.get("reason"):
            raise JobFailed(f"machine {place.first} ended the training: {said['reason']}")


def first_of(failed: Mapping[str, Ended]) -> str:
    """Which machine failed first. Those that only say that they lost another one did not; else the clock decides."""
    return min(failed, key=lambda name: (bool(_HEARSAY.search(failed[name].reason)), failed[name].at_s))


def interface_of(address: str) -> str:
    """Network interface of this machine that has the address; "" if none has."""
    found = psutil.net_if_addrs().items()
    return next((name for name, addresses in found if any(one.address == address for one in addresses)), "")


def talk_by(address: str) -> None:
    """Have the processes that this one starts talk by the network that the machines talk by, unless told otherwise:
    gloo would take what the host's name resolves to, and NCCL the first one it finds."""
    if name := interface_of(address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


@contextmanager
def _called(place: Place, asked: Training) -> Iterator[Line]:
    """A line to the first machine, which may come up later. Raises: JobFailed if it does not."""
    deadline_s, trouble = time.monotonic() + asked.join_timeout_s, ""
    while True:
        try:
            connection = socket.create_connection(
                (place.address or place.first, asked.port), timeout=_KEEPALIVE["TCP_KEEPIDLE"]
            )
            break
        except OSError as error:  # its name may not be known yet either
            trouble = str(error)
        if time.monotonic() > deadline_s:
            raise JobFailed(
                f"machine {place.first} was not reached at port {asked.port} within {asked.join_timeout_s:g} s "
                f"({trouble}); look at its log, and whether they can reach each other"
            )
        time.sleep(_CALL_AGAIN_S)
    line = Line(connection, name=place.first)
    try:
        talk_by(line.own_address)
        yield line
    finally:
        line.close()


def _one_round(run: Callable[[Meeting], None], meeting: Meeting) -> Ended:
    try:
        run(meeting)
    except Died as error:
        return Ended(reason=str(error), can_repeat=True, at_s=error.at_s)
    except JobFailed as error:
        return Ended(reason=str(error), at_s=SystemClock().now_s())
    return Ended()


def _as_failure(said: Mapping[str, Any], name: str) -> JobFailed:
    return JobFailed(f"machine {name} failed before the training began: {said.get('reason', said)}")


def _together(text: str, reports: Mapping[str, Ended]) -> str:
    others = [f"{name}: {ended.reason}" for name, ended in reports.items() if ended.reason]
    return f"{text} ({'; '.join(others)})" if others else text


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])
