"""Work for the core that a training leaves idle: a fork of this process computes one JSON document meanwhile.

In a process, not in a thread: workers are forked from this process, and a fork takes over a lock that a thread holds.
"""

import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from clearway.infra.orphans import die_with_parent

LOG = logging.getLogger("clearway.train")

Document = dict[str, Any]


class Beside:
    """`compute`: pure, and its result is JSON; numpy and pyarrow only, since torch's threads survive no fork."""

    def __init__(self, compute: Callable[[], Document]) -> None:
        self._compute = compute
        self._child: BaseProcess | None = None

    def start(self, path: Path) -> None:
        """Begin to write the document, unless an earlier process of this job has."""
        if not path.exists():
            self._child = multiprocessing.get_context("fork").Process(target=self._write, args=(path,), daemon=True)
            self._child.start()

    def found(self, path: Path) -> Document:
        """The document; computed here if the other process was killed or refused it, so that its error is seen."""
        if self._child is not None:
            self._child.join()
            if self._child.exitcode != 0:
                LOG.warning("the process for %s ended with %s, computing it here", path.name, self._child.exitcode)
        if not path.exists():
            return self._compute()
        document: Document = json.loads(path.read_bytes())
        return document

    def _write(self, path: Path) -> None:
        die_with_parent()
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(self._compute()), encoding="utf-8")
        temporary.replace(path)
