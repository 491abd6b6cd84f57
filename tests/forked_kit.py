"""Processes to kill that need no seconds of imports: forks of one that has loaded the heavy libraries.

It is how a warm worker starts jobs. Each fork is a process of its own: its environment, its streams, its own modules of
Clearway, and it ends as a new interpreter does.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from clearway.launch.commands.warm_worker import LIBRARIES

TEMPLATE = """
import gc, importlib, json, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()
while line := sys.stdin.readline():
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.environ.clear()
        os.environ.update(asked["variables"])
        for number, name in enumerate(("in", "out", "err")):
            os.dup2(os.open(asked[name], os.O_RDONLY if number == 0 else os.O_WRONLY), number)
        sys.stdin, sys.argv = open(0, closefd=False), ["-c"]
        exec(asked["code"], {"__name__": "__main__"})
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run_code(code: str, text: str, *, variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """What `python -c code` does with `text` on its standard input; waits for its end."""
    template = _template()
    assert template.stdin is not None
    assert template.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / name for name in ("in", "out", "err")}
        for file in files.values():
            file.touch()
        files["in"].write_text(text, encoding="utf-8")
        asked = {"code": code, "variables": dict(variables), **{name: str(file) for name, file in files.items()}}
        try:
            template.stdin.write(json.dumps(asked) + "\n")
            template.stdin.flush()
            code_of_exit = template.stdout.readline()
            assert code_of_exit, "the process that forks others has ended"
        except BaseException:  # the time of this test is over, or the template was killed; the next test gets another
            _end(template)
            _template.cache_clear()
            raise
        out, err = (files[name].read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
    return subprocess.CompletedProcess(["python", "-c", code], int(code_of_exit), out, err)


@functools.cache
def _template() -> "subprocess.Popen[str]":
    """One per test process, started by the first that asks; it ends when its standard input does."""
    # Loaded under the variables that children get, as far as libraries read them when they load.
    command = [sys.executable, "-c", TEMPLATE, *LIBRARIES]
    template = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)
    atexit.register(_end, template)
    return template


def _end(template: "subprocess.Popen[str]") -> None:
    template.kill()
    template.communicate()
