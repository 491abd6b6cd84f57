"""`python -m clearway.serve.candidate`: one version in a process of its own, started by the gateway and by nobody else.

Whatever happens here, a crash, a hang, a leak, costs the gateway one process. It ends when the gateway closes its side
of the sockets, and on Linux also when the gateway dies while a model call never returns.
"""

import argparse
import contextlib
import gc
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from clearway.contracts.errors import ClearwayError, DataError, IntegrityError
from clearway.infra.orphans import die_with_parent
from clearway.packaging.encoder import RowError
from clearway.serve.frames import CRASHED, Answer, Ask, BadFrame, Frames, Ready, decode_ask, framed
from clearway.serve.loaded import Loaded, score_together, warm
from clearway.serve.local_copy import LocalCopy

# Of -1000 to 1000: when memory runs out, the kernel ends this process before the one that answers everybody.
_OOM_SCORE = b"800"
_PIECE_BYTES = 1 << 20


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 once the gateway has closed the sockets, 1 if the package cannot be served."""
    parser = argparse.ArgumentParser(prog="python -m clearway.serve.candidate")
    for name in ("--folder", "--key-folder"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--digest", required=True)
    for name in ("--data-fd", "--control-fd", "--gateway-pid"):
        parser.add_argument(name, type=int, required=True)
    chosen = parser.parse_args(arguments)
    if not _die_with(chosen.gateway_pid):
        return 0
    with socket.socket(fileno=chosen.data_fd) as data, socket.socket(fileno=chosen.control_fd) as control:
        try:
            package = LocalCopy(chosen.folder, key_folder=chosen.key_folder).open(chosen.digest)
            version = warm(package.uri, package)
        except Exception as error:  # noqa: BLE001 - told to the gateway, which raises it
            known = isinstance(error, (ClearwayError, RowError))
            words = str(error) if known else f"{type(error).__name__}: {error}"
            control.sendall(framed(Ready(words[:2_000], isinstance(error, IntegrityError))))
            return 1
        gc.collect()
        gc.freeze()
        control.sendall(framed(Ready()))
        with contextlib.suppress(ConnectionError, BadFrame, msgspec.DecodeError):
            serve(version, data, control)
    return 0


def serve(version: Loaded, data: socket.socket, control: socket.socket) -> None:
    """Answer until a socket is closed by the other side; what was asked before that is still answered."""
    frames = {data: Frames(), control: Frames()}
    with selectors.DefaultSelector() as selector:
        for sock in frames:
            selector.register(sock, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                sock = data if key.fileobj is data else control
                piece = sock.recv(_PIECE_BYTES)
                if not piece:
                    return
                asks = [decode_ask(payload) for payload in frames[sock].feed(piece)]
                if asks:
                    sock.sendall(b"".join(map(framed, answers(version, asks))))


def answers(version: Loaded, asks: Sequence[Ask]) -> list[Answer]:
    """One answer per question. Questions that wait together are scored by one call, where that changes no bit."""
    groups = [asks] if version.is_row_wise and asks else [[ask] for ask in asks]
    return [
        _answer(ask.number, scores)
        for group in groups
        for ask, scores in zip(group, score_together(version.scorer, [one.rows for one in group]), strict=True)
    ]


def _answer(number: int, scores: list[float] | Exception) -> Answer:
    if isinstance(scores, RowError):
        return Answer(number, code="bad_value", message=str(scores))
    if isinstance(scores, DataError):
        return Answer(number, code="no_finite_score")
    if isinstance(scores, Exception):
        return Answer(number, code=CRASHED, message=f"{type(scores).__name__}: {scores}"[:500])
    return Answer(number, scores=scores)


def _die_with(gateway_pid: int) -> bool:
    """Tie this process to the gateway. False: the gateway is gone already."""
    # A signal to the whole group is the gateway's to obey: it drains, and needs this process meanwhile.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        die_with_parent()
        with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("wb") as file:
            file.write(_OOM_SCORE)
    return os.getppid() == gateway_pid


if __name__ == "__main__":
    sys.exit(main())
