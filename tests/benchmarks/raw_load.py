"""A load generator that costs little: plain sockets and epoll, requests made beforehand, answers cut by their length.

About 20 us per request of its own, so that one core of it drives a server core to its limit. Used by the benchmarks of
serving.
"""

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

import psutil

_END, _LENGTH = b"\r\n\r\n", b"content-length:"


class Connections:
    """Open keep-alive connections to one port; each has at most one request under way."""

    def __init__(self, port: int, number: int) -> None:
        self._epoll, self._socks, self._parts = select.epoll(), dict[int, socket.socket](), dict[int, bytes]()
        for _ in range(number):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._epoll.register(sock.fileno(), select.EPOLLIN)
            self._socks[sock.fileno()] = sock

    @property
    def ids(self) -> list[int]:
        """One number per connection."""
        return list(self._socks)

    def send(self, connection: int, request: bytes) -> None:
        """A request is far smaller than a socket's buffer, so all of it goes at once."""
        if self._socks[connection].send(request) != len(request):
            raise RuntimeError("a socket did not take a whole request")

    def answers(self, timeout_s: float) -> list[tuple[int, int, bytes]]:
        """(connection, status, body) of every answer that is whole. Raises: ConnectionError if the server hung up."""
        found = []
        for connection, _ in self._epoll.poll(timeout_s):
            piece = self._socks[connection].recv(65_536)
            if not piece:
                raise ConnectionError("the server closed a connection")
            data = self._parts.pop(connection, b"") + piece
            cut = data.find(_END)
            begin = cut + len(_END)
            if cut < 0 or len(data) < begin + _length_of(data, cut):
                self._parts[connection] = data
            else:
                found.append((connection, int(data[9:12]), data[begin:]))
        return found

    def close(self) -> None:
        """End all."""
        self._epoll.close()
        for sock in self._socks.values():
            sock.close()


def _length_of(data: bytes, cut: int) -> int:
    at = data.find(_LENGTH)
    if at < 0:  # a server that writes its names in capitals
        at = data[:cut].lower().find(_LENGTH)
    at += len(_LENGTH)
    return int(data[at : data.find(b"\r\n", at)])


def closed_loop(port: int, requests: Sequence[bytes], *, seconds: float) -> list[float]:
    """One connection per request, which is sent again and again; seconds each answer took. 200 or it raises."""
    connections = Connections(port, len(requests))
    of = dict(zip(connections.ids, requests, strict=True))
    durations, sent_s = list[float](), dict[int, float]()
    try:
        until_s = time.perf_counter() + seconds
        for connection, request in of.items():
            sent_s[connection] = time.perf_counter()
            connections.send(connection, request)
        while (now_s := time.perf_counter()) < until_s:
            for connection, status, body in connections.answers(0.1):
                if status != 200:
                    raise RuntimeError(f"port {port} answered {status}: {body[:200]!r}")
                now_s = time.perf_counter()
                durations.append(now_s - sent_s[connection])
                sent_s[connection] = now_s
                connections.send(connection, of[connection])
    finally:
        connections.close()
    return durations


def open_loop(
    port: int,
    request: bytes,
    *,
    rate: float,
    number: int,
    is_over: Callable[[], bool],
    answered: Callable[[float, float, float, int, bytes], None],
) -> None:
    """Requests due at fixed times whatever the server does; with no connection free they wait, and their time runs.

    Args:
        number: connections.
        answered: called with the times (monotonic seconds) at which a request was due, sent and answered, its status
            and body.
    """
    connections = Connections(port, number)
    free, times = deque(connections.ids), dict[int, tuple[float, float]]()  # in turn: none stays idle for long
    due_s = time.monotonic()
    try:
        while not is_over() or len(free) < number:
            now_s = time.monotonic()
            while due_s <= now_s and free and not is_over():
                connection = free.popleft()
                times[connection] = due_s, now_s
                connections.send(connection, request)
                due_s += 1 / rate
            wait_s = max(due_s - now_s, 0.0) if free else 0.1
            for connection, status, body in connections.answers(min(wait_s, 0.1)):
                answered(*times.pop(connection), time.monotonic(), status, body)
                free.append(connection)
    finally:
        connections.close()


def pin(pid: int, core: int) -> None:
    """Keep a process tree on one core, if there are two."""
    if (os.cpu_count() or 1) >= 2:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            process.cpu_affinity([core])
