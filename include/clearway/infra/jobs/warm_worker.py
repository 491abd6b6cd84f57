"""The warm worker: imports the heavy libraries once, then forks a process for each job that asks.

    python -m clearway.infra.jobs.warm_worker FOLDER LIBRARY…        started by `python -m clearway warm-worker`

It loads installed libraries only. A job loads every module of Clearway and its product's code itself, after the fork,
so an edited file is never stale. Neither job nor library can tell the difference from a new interpreter: a wish is
refused whose interpreter, variables or installed libraries are not exactly those the libraries were loaded under.

A job is not bound to the worker's life. When the worker dies, jobs go on and are found as ever: by their lock, and by
the mark in their environment, which a fork writes over the one it inherited.

What may be alive before a fork (`/proc/self/task`): threads of OpenBLAS and jemalloc, which both end and restart their
threads around a fork by themselves. A Python thread would take its locks along, so with one the worker does not serve.
"""

import atexit
import ctypes
import gc
import importlib
import json
import logging
import os
import runpy
import select
import signal
import site
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from clearway.infra.jobs.processes import JOB_VARIABLE
from clearway.infra.jobs.start import GO, MAX_MESSAGE_BYTES, address

LOG = logging.getLogger("clearway.jobs")
# Room for the path of any job's folder in the environment that the kernel shows of a process (PATH_MAX).
MARK_ROOM = 4096
OWN_PREFIX = "CLEARWAY"
# Written by shells for themselves, read by no library.
SHELL_VARIABLES = {"PWD", "OLDPWD", "SHLVL", "_"}
READ_TIMEOUT_S = 1.0
MAX_WAITING = 64
_ENV_START = 47  # proc(5): field 50 of /proc/self/stat, counted from the one after the name


def serve(folder: Path, libraries: tuple[str, ...]) -> NoReturn:
    """Load `libraries`, then fork jobs for whoever asks in `folder`, until a signal ends this process."""
    given, installed, mark = dict(os.environ), installed_libraries(), _mark_address()
    changed = _load(libraries, given)
    listener, (ended, ended_writer) = _listen(folder), _note_ended_children()
    LOG.info("ready")
    while True:
        ready, _, _ = select.select([listener, ended], [], [])
        if ended in ready:
            ended.recv(MAX_MESSAGE_BYTES)
            _reap()
        if listener not in ready:
            continue
        line, _ = listener.accept()
        with line:
            wish = _read(line)
            if wish is None:
                continue
            if refusal := why_not(wish, given=given, installed=installed):
                LOG.info("refused: %s", refusal)
                _answer(line, {"refused": refusal})
            elif os.fork() == 0:
                _be_a_job(line, wish, mark=mark, changed=changed, not_its=(listener, ended, ended_writer))


def why_not(wish: Mapping[str, Any], *, given: Mapping[str, str], installed: frozenset[tuple[str, int]]) -> str:
    """Why a fork of this process would not be the process that was wished for; empty if it would."""
    if wish["command"][0] != sys.executable:
        return f"the command is {wish['command'][0]}, the warm worker runs {sys.executable}"
    if len(wish["variables"][JOB_VARIABLE].encode()) > MARK_ROOM:
        return f"the job's folder has a name longer than {MARK_ROOM} bytes"
    mine, theirs = _seen_by_libraries(given), _seen_by_libraries(wish["variables"])
    if differing := sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k)):
        return f"environment variables differ from the warm worker's: {', '.join(differing)}"
    if installed_libraries() != installed:
        return "installed libraries have changed since the warm worker started; stop the stack and start it again"
    return ""


def _seen_by_libraries(variables: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in variables.items() if not k.startswith(OWN_PREFIX) and k not in SHELL_VARIABLES}


def installed_libraries() -> frozenset[tuple[str, int]]:
    """Every installed distribution, with the time its record was written (ns)."""
    folders = [Path(folder) for folder in site.getsitepackages() if Path(folder).is_dir()]
    return frozenset((d.name, d.stat().st_mtime_ns) for f in folders for d in f.glob("*.dist-info"))


def _load(libraries: tuple[str, ...], given: Mapping[str, str]) -> dict[str, str]:
    """Import; what that changed in the environment. Raises: RuntimeError if a library started a Python thread."""
    begin_s, begin_cpu_s = time.monotonic(), time.process_time()
    gc.disable()  # all this garbage is kept: looking for some takes a sixth of the time
    for name in libraries:
        try:
            importlib.import_module(name)
        except ImportError as error:  # an extra that is not installed; a job that needs it will say so
            LOG.warning("%s is not loaded: %s", name, error)
    gc.freeze()
    gc.enable()
    if threading.active_count() > 1:
        raise RuntimeError(f"a library started a thread that no fork has: {threading.enumerate()}; jobs start without")
    seconds = time.monotonic() - begin_s, time.process_time() - begin_cpu_s
    LOG.info("%d libraries loaded in %.1f s, %.1f of them CPU", len(libraries), *seconds)
    return {k: v for k, v in os.environ.items() if given.get(k) != v}


def _listen(folder: Path) -> socket.socket:
    """A socket that only this user can reach, in the place of one that a dead worker left."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with address(folder) as path:
        Path(path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
    listener.listen(MAX_WAITING)
    return listener


def _note_ended_children() -> tuple[socket.socket, socket.socket]:
    """A pair of sockets; the first can be read when a child has ended."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader, writer


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _read(line: socket.socket) -> dict[str, Any] | None:
    """The wish; None from a caller who only looked whether somebody is here, or who left."""
    line.settimeout(READ_TIMEOUT_S)
    try:
        message = line.recv(MAX_MESSAGE_BYTES)
    except OSError:
        return None
    return json.loads(message) if message else None


def _answer(line: socket.socket, reply: dict[str, Any]) -> None:
    try:
        line.send(json.dumps(reply).encode())
    except OSError:  # whoever asked has given up, and helps himself
        return


def _be_a_job(
    line: socket.socket,
    wish: dict[str, Any],
    *,
    mark: int,
    changed: Mapping[str, str],
    not_its: tuple[socket.socket, ...],
) -> NoReturn:
    """In the fork: report, wait for GO, run, leave as an interpreter would. `not_its`: what only the worker uses."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for own in not_its:
            own.close()
        os.setsid()
        _write_mark(mark, wish["variables"][JOB_VARIABLE])
        if _is_told_to_go(line):
            _settle(wish, changed)
            code = _run(wish["command"][1:])
            threading._shutdown()  # type: ignore[attr-defined]  # what multiprocessing does at the end of a fork
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - the worker's loop must never go on in a fork
        traceback.print_exc()
    finally:
        os._exit(code)


def _is_told_to_go(line: socket.socket) -> bool:
    """Take over log and lock; False if the submitter has hung up."""
    line.settimeout(None)
    try:
        line.send(json.dumps({"pid": os.getpid()}).encode())
        word, files, _, _ = socket.recv_fds(line, len(GO), 2)
    except OSError:
        return False
    line.close()
    if word != GO:
        return False
    log, lock = files
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.set_inheritable(lock, True)  # as a new interpreter gets it
    return True


def _settle(wish: Mapping[str, Any], changed: Mapping[str, str]) -> None:
    """Make this process what a new interpreter with this command would be."""
    os.chdir(wish["cwd"])
    os.environ.clear()
    os.environ.update(wish["variables"] | dict(changed))
    for name in [n for n in sys.modules if n == "clearway" or n.startswith("clearway.")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    for handler in logging.root.handlers[:]:
        logging.root.removeHandler(handler)
    logging.root.setLevel(logging.WARNING)
    if "numpy" in sys.modules:  # Python seeds its own generator anew in every fork; numpy does not
        sys.modules["numpy"].random.seed()


def _run(words: list[str]) -> int:
    """`-m module argument…` or `script argument…`; the exit code."""
    try:
        if words[0] == "-m":
            sys.argv, sys.path[0] = words[1:], str(Path.cwd())
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        sys.stderr.write(f"{end.code}\n")
        return 1
    return 0


def _mark_address() -> int:
    """Where the kernel reads this process's CLEARWAY_JOB when others ask for its environment."""
    stat = Path("/proc/self/stat").read_text(encoding="utf-8")
    start = int(stat.rpartition(")")[2].split()[_ENV_START])
    name = f"{JOB_VARIABLE}=".encode()
    shown = b"\0" + Path("/proc/self/environ").read_bytes()
    return start + shown.index(b"\0" + name) + len(name)


def _write_mark(place: int, folder: str) -> None:
    """`placeholder` made room for MARK_ROOM bytes; the kernel shows a variable up to its first zero byte."""
    ctypes.memmove(place, os.fsencode(folder).ljust(MARK_ROOM, b"\0"), MARK_ROOM)


def placeholder() -> Path:
    """What a worker's own CLEARWAY_JOB must be, so that a job's folder can be written over it."""
    return Path("-" * MARK_ROOM)


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    LOG.setLevel(logging.INFO)
    serve(Path(sys.argv[1]), tuple(sys.argv[2:]))
