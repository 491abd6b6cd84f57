"""Candidates in processes of their own, seen from the gateway.

A child has two sockets. `data` carries callers' requests and belongs to the event loop; `control` carries its first
word and probes, and blocks the thread that asks. A thread per child waits for its end.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from clearway.contracts.errors import ConfigError, IntegrityError
from clearway.kinds.scorers import patience_s, start_s
from clearway.packaging.package import Package
from clearway.serve.frames import (
    CRASHED,
    Answer,
    Ask,
    BadFrame,
    Frames,
    Row,
    decode_answer,
    decode_ready,
    framed,
    read_frame,
)
from clearway.serve.refusal import Refusal, bad_value, no_finite_score

log = logging.getLogger("clearway.serve")

TICK_S = 0.1
PROBE_TIMEOUT_S = 10.0
END_TIMEOUT_S = 5.0
# Three quarters of what the gateway holds at once. Under a watch all callers are the candidate's, and a burst of them
# is not its fault; the rest is room for those that the champion answers while the candidate hangs.
MAX_IN_FLIGHT = 192
MAX_WAITING_BYTES = 8 << 20
# Requests in a row without an answer. A version that fails one of a hundred does so five times in a row once in 10^10
# requests; at most five callers wait to the end.
MAX_FAILURES_IN_A_ROW = 5


class Failed(Exception):
    """A candidate gave no answer; the text says why."""


class Full(Failed):
    """It was not even asked: too much waits for it already."""


class Child:
    """A version that answers from its own process.

    Args:
        package: the verified package without its files; the child reads them itself.
        process: the child.
        data, control: the gateway's ends.
    """

    def __init__(
        self,
        uri: str,
        package: Package,
        process: "subprocess.Popen[bytes]",
        data: socket.socket,
        control: socket.socket,
    ) -> None:
        self.uri, self.package, self.digest = uri, package, package.digest
        self._process, self._control, self._reason, self._is_ending = process, control, "", False
        self._control_lock, self._killer = threading.Lock(), threading.Timer(END_TIMEOUT_S, process.kill)
        self._killer.daemon = True
        self._line = _Line(data, self.condemn, patience_s=patience_s(package))

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def ask(self, rows: Sequence[Row]) -> list[float]:
        """One score per row, on the event loop. Raises: Refusal 422 for rows it does not take, Failed, Full."""
        return _scores_of(await self._line.ask(rows), len(rows))

    def score(self, rows: Sequence[Row]) -> list[float]:
        """One score per row, blocking; for probes. Raises: Refusal 422."""
        try:
            with self._control_lock:
                self._control.settimeout(PROBE_TIMEOUT_S)
                self._control.sendall(framed(Ask(0, list(rows))))
                answer = decode_answer(read_frame(self._control))
            return _scores_of(answer, len(rows))
        except TimeoutError as error:
            self.condemn(f"it did not answer a probe within {PROBE_TIMEOUT_S:g} s")
            raise _no_probe(f"no answer within {PROBE_TIMEOUT_S:g} s") from error
        except (OSError, EOFError, BadFrame, msgspec.DecodeError) as error:
            raise _no_probe("its process has ended") from error
        except OverflowError as error:
            raise Refusal(422, "bad_value", "a number is beyond float64; allowed: a finite float32, or null") from error
        except Failed as error:
            raise _no_probe(str(error)) from error

    def wait_until_ready(self, timeout_s: float) -> None:
        """Return once it serves; otherwise it is ended. Raises: IntegrityError, ConfigError."""
        try:
            self._control.settimeout(timeout_s)
            ready = decode_ready(read_frame(self._control))
        except TimeoutError as error:
            self._abandon()
            raise ConfigError(
                f"version {self.digest} was not ready within {timeout_s:g} s; look at what its model does on loading"
            ) from error
        except (OSError, EOFError, BadFrame, msgspec.DecodeError) as error:
            words = self._abandon()
            raise ConfigError(f"version {self.digest} cannot be loaded: {words}; train again") from error
        if ready.error:
            self._abandon()
            raise (IntegrityError if ready.is_damaged else ConfigError)(ready.error)

    def watch(self, on_death: "Callable[[Child, str], None]") -> None:
        """From now on, `on_death(child, reason)` is called once, in a thread, if it ends without being told to."""
        threading.Thread(target=self._watch, args=(on_death,), name="child-watch", daemon=True).start()

    def condemn(self, reason: str) -> None:
        """Kill it, for this reason."""
        self._reason = self._reason or reason
        self._process.kill()

    def end(self) -> None:
        """Let it answer what it was asked, then end it. Returns at once; telling it twice is telling it once."""
        if self._is_ending:
            return
        self._is_ending = True
        self._killer.start()
        self._line.hang_up()

    def _watch(self, on_death: "Callable[[Child, str], None]") -> None:
        code = self._process.wait()
        self._killer.cancel()
        self._line.close()
        self._control.close()
        if not self._is_ending:
            on_death(self, self._reason or _words(code))

    def _abandon(self) -> str:
        """End a child that never served; how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # it has closed its socket, so its own end is near
            self._process.wait(0.2)
        words = _words(self._process.returncode) if self._process.returncode is not None else "it does not answer"
        self._process.kill()
        self._process.wait()
        self._line.close()
        self._control.close()
        return words


class _Line:
    """The data socket: many questions under way on one event loop."""

    def __init__(self, sock: socket.socket, condemn: Callable[[str], None], *, patience_s: float) -> None:
        sock.setblocking(False)
        self._patience_s = patience_s
        self._sock, self._condemn, self._frames = sock, condemn, Frames()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: dict[int, tuple[asyncio.Future[Answer], int]] = {}
        self._numbers, self._out = itertools.count(1), bytearray()
        self._num_ticks, self._num_failed, self._is_ticking, self._is_closed = 0, 0, False, False

    async def ask(self, rows: Sequence[Row]) -> Answer:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._attach(loop)
        if len(self._waiting) >= MAX_IN_FLIGHT:
            raise Full(f"{MAX_IN_FLIGHT} requests wait for it already")
        number = next(self._numbers)
        try:
            frame = framed(Ask(number, list(rows)))
        except OverflowError as error:
            raise Refusal(422, "bad_value", "a number is beyond float64; allowed: a finite float32, or null") from error
        self._send(frame)
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting[number] = (future, self._num_ticks)
        if not self._is_ticking:
            self._is_ticking = True
            loop.call_later(TICK_S, self._tick)
        try:
            answer = await future
        finally:
            self._waiting.pop(number, None)
        self._count(answer)
        return answer

    def hang_up(self) -> None:
        """No more questions. On the loop, so that a request that has just chosen this version still gets through."""
        self._on_loop(self._shut)

    def close(self) -> None:
        """The other side is gone."""
        self._on_loop(self._lose)

    def _on_loop(self, action: Callable[[], None]) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(action)
                return
        except RuntimeError:  # that loop is closed, nobody waits there
            self._loop = None
        action()

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_closed:
            raise Failed("its process has ended")
        self._waiting.clear()  # of a loop that is gone
        self._is_ticking, self._loop = False, loop
        loop.add_reader(self._sock.fileno(), self._on_readable)

    def _send(self, frame: bytes) -> None:
        if self._is_closed:
            raise Failed("its process has ended")
        if self._out:
            if len(self._out) + len(frame) > MAX_WAITING_BYTES:
                raise Full("it does not take what was sent to it")
            self._out += frame
            return
        try:
            num_sent = self._sock.send(frame)
        except BlockingIOError:
            num_sent = 0
        except OSError as error:
            raise Failed("its process has ended") from error
        if num_sent < len(frame):
            self._out += frame[num_sent:]
            assert self._loop is not None
            self._loop.add_writer(self._sock.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        try:
            del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()
        if not self._out and self._loop is not None:
            self._loop.remove_writer(self._sock.fileno())

    def _on_readable(self) -> None:
        try:
            piece = self._sock.recv(1 << 18)
            answers = [decode_answer(payload) for payload in self._frames.feed(piece)]
        except BlockingIOError:
            return
        except (BadFrame, msgspec.DecodeError):
            self._condemn("it answered with what is no answer")
            piece = b""
        except OSError:
            piece = b""
        if not piece:
            self._lose()
            return
        for answer in answers:
            future, _ = self._waiting.get(answer.number, (None, 0))
            if future is not None and not future.done():
                future.set_result(answer)

    def _tick(self) -> None:
        """Time as this loop lived it: when the whole machine stood still, nobody was late."""
        if self._loop is not None and not self._is_closed:
            self._on_readable()  # what has arrived meanwhile is no timeout
        self._num_ticks += 1
        num_allowed = round(self._patience_s / TICK_S)
        for future, asked in list(self._waiting.values()):
            if self._num_ticks - asked > num_allowed and not future.done():
                self._fail(f"no answer within {self._patience_s:g} s")
                future.set_exception(Failed(f"no answer within {self._patience_s:g} s"))
        self._is_ticking = bool(self._waiting)
        if self._is_ticking and self._loop is not None:
            self._loop.call_later(TICK_S, self._tick)

    def _count(self, answer: Answer) -> None:
        if answer.code == CRASHED:
            self._fail(f"it crashed inside: {answer.message}")
        else:
            self._num_failed = 0

    def _fail(self, reason: str) -> None:
        self._num_failed += 1
        if self._num_failed == MAX_FAILURES_IN_A_ROW:
            self._condemn(f"{MAX_FAILURES_IN_A_ROW} requests in a row had no answer, the last one: {reason}")

    def _shut(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def _lose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for future, _ in list(self._waiting.values()):
            if not future.done():
                future.set_exception(Failed("its process has ended"))


@dataclasses.dataclass(frozen=True, slots=True)
class Nursery:
    """Starts children from one thread, which lives as long as the gateway: Linux ties a child's life to the thread.

    Args:
        folder: the product's local copy, from which children load.
        key_folder: where the signature's public key lies.
    """

    folder: Path
    key_folder: Path
    _starter: ThreadPoolExecutor = dataclasses.field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=1, thread_name_prefix="start-child")
    )

    def start(self, uri: str, package: Package, *, timeout_s: float | None = None) -> Child:
        """A child that serves the package; None: within what its kind of model may take. Raises: IntegrityError,
        ConfigError."""
        ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
        try:
            process = self._starter.submit(self._spawn, package.digest, theirs).result()
        except BaseException:
            for sock in ours:
                sock.close()
            raise
        finally:
            for sock in theirs:
                sock.close()
        child = Child(uri, dataclasses.replace(package, files={}), process, *ours)
        child.wait_until_ready(start_s(package) if timeout_s is None else timeout_s)
        log.info("candidate runs in a process of its own", extra={"model_digest": package.digest, "pid": process.pid})
        return child

    def close(self) -> None:
        """Start no more, and end what is left: its life is tied to the thread that ends here."""
        self._starter.shutdown()

    def _spawn(self, digest: str, theirs: Sequence[socket.socket]) -> "subprocess.Popen[bytes]":
        data_fd, control_fd = (sock.fileno() for sock in theirs)
        values = {
            "folder": self.folder,
            "key-folder": self.key_folder,
            "digest": digest,
            "data-fd": data_fd,
            "control-fd": control_fd,
            "gateway-pid": os.getpid(),
        }
        options = [f"--{name}={value}" for name, value in values.items()]
        command = [sys.executable, "-m", "clearway.serve.candidate", *options]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(data_fd, control_fd))  # noqa: S603 - our own words


def _scores_of(answer: Answer, num_rows: int) -> list[float]:
    if not answer.code and len(answer.scores) == num_rows:
        return answer.scores
    if answer.code == "bad_value":
        raise bad_value(answer.message)
    if answer.code == "no_finite_score":
        raise no_finite_score()
    raise Failed(answer.message or f"{len(answer.scores)} scores for {num_rows} rows")


def _no_probe(reason: str) -> Refusal:
    return Refusal(422, "version_failed", f"the version gave no answer: {reason}")


def _words(code: int) -> str:
    if code >= 0:
        return f"its process ended by itself with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"its process was ended by signal {-code} ({signal.Signals(-code).name})"
    return f"its process was ended by signal {-code}"
