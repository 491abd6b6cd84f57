"""Live progress of DAG runs on stderr: one line per finished task, and what runs now on a terminal."""

import sys
from typing import TextIO

from rich.console import Console
from rich.status import Status

from clearway.launch.airflow_api import Run, Task

_WORDS = {"success": "done", "skipped": "skipped", "failed": "FAILED", "up_for_retry": "will be tried again"}


class RunView:
    """Shows runs as they proceed; give `tasks` to whoever polls."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._console = Console(file=stream, highlight=False)
        self._status: Status | None = None
        self._shown: set[tuple[str, str, str, int]] = set()

    def say(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, soft_wrap=True, markup=False)

    def tasks(self, run: Run, tasks: tuple[Task, ...]) -> None:
        """Print tasks that ended since the last call."""
        for task in tasks:
            word = _WORDS.get(task.state or "")
            mark = (run.run_id, task.task_id, task.state or "", task.try_number)
            if word is None or mark in self._shown:
                continue
            self._shown.add(mark)
            if task.state != "skipped":
                seconds = f"{task.duration_s:6.1f} s" if task.duration_s is not None else ""
                self.say(f"    {run.dag_id:<18} {task.task_id:<12} {word:<8} {seconds}")
        self._spin(run, tasks)

    def close(self) -> None:
        """Remove the line that shows what runs now."""
        if self._status:
            self._status.stop()
            self._status = None

    def _spin(self, run: Run, tasks: tuple[Task, ...]) -> None:
        if not self._console.is_terminal:
            return
        now = [t.task_id for t in tasks if t.state in {"running", "queued", "deferred", "awaiting_input"}]
        text = f"{run.dag_id}: {', '.join(now) or 'between tasks'}"
        if run.has_ended:
            self.close()
        elif self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)
