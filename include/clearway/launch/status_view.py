"""Live status for people, on stderr: one table that changes in place on a terminal, one line per change elsewhere."""

import sys
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from clearway.launch.components import ENDPOINT
from clearway.launch.state import ComponentState, Health, StackState

_STYLE = {
    Health.WAITING: "dim",
    Health.STARTING: "yellow",
    Health.HEALTHY: "green",
    Health.UNHEALTHY: "red",
    Health.STOPPED: "dim",
}


class StatusView:
    """Shows StackState as it changes; use as a context manager."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._console = Console(file=stream, highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False) if stream.isatty() else None
        self._seen: dict[str, ComponentState] = {}
        self._noted: set[str] = set()

    def __enter__(self) -> "StatusView":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        """A few words between the changes."""
        self._console.print(text, soft_wrap=True, markup=False)

    def know(self, state: StackState) -> None:
        """Take a state as already shown, so that only later changes are lines of their own."""
        self._seen = {part.name: part for part in state.components}
        self._noted |= set(state.notes)

    def show(self, state: StackState) -> None:
        """Draw what changed."""
        for note in state.notes:
            if note not in self._noted:
                self._noted.add(note)
                self._console.print(f"note: {note}")
        if self._live:
            self._live.update(status_table(state))
            return
        for part in state.components:
            before = self._seen.get(part.name)
            if before is None or (before.health, before.detail) != (part.health, part.detail):
                self._seen[part.name] = part
                self._console.print(_line(part), soft_wrap=True)


def status_table(state: StackState) -> Table:
    """Components, their health and where they listen."""
    table = Table(box=None, pad_edge=False)
    for heading in ("component", "health", "pid", "where"):
        table.add_column(heading, no_wrap=True)
    where = {"api-server": state.airflow_url, "mlflow": state.mlflow_url}
    where |= {f"{ENDPOINT}{product}": f"{url}/docs" for product, url in state.endpoint_urls.items()}
    for part in state.components:
        health = f"[{_STYLE[part.health]}]{part.health}[/] {part.detail}"
        table.add_row(part.name, health, str(part.pid or ""), where.get(part.name, ""))
    return table


def _line(part: ComponentState) -> str:
    detail = f" ({part.detail})" if part.detail else ""
    restarts = f", restarted {part.num_restarts} times" if part.num_restarts else ""
    return f"{part.name:<14} {part.health}{detail}{restarts}"
