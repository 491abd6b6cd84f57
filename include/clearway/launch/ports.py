"""Which loopback ports the stack takes, and what happens when they are taken."""

import dataclasses
import itertools
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clearway.contracts.errors import ConfigError

LOOPBACK = "127.0.0.1"
# How far above a wanted port a free one is looked for.
SEARCH_SPAN = 50
MAX_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports on 127.0.0.1: `airflow` (UI and REST), `mlflow` (UI), `endpoint` (first model server)."""

    airflow: int = 8080
    mlflow: int = 5000
    endpoint: int = 8890


def url_at(port: int) -> str:
    """Base URL of what listens there."""
    return f"http://{LOOPBACK}:{port}"


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_ports(wanted: Ports, *, is_free: Callable[[int], bool] = is_free) -> tuple[Ports, tuple[str, ...]]:
    """Wanted ports, each replaced by the next free one if it is taken, and a sentence per replacement.

    Raises: ConfigError if a wanted port is none, or nothing is free within SEARCH_SPAN of it.
    """
    chosen: dict[str, int] = {}
    notes = []
    for name, port in dataclasses.asdict(wanted).items():
        if not 0 < port <= MAX_PORT:
            raise ConfigError(f"--{name}-port {port} is no port; allowed: 1 to {MAX_PORT}")
        candidates = range(port, min(port + SEARCH_SPAN, MAX_PORT + 1))
        found = next((p for p in candidates if p not in chosen.values() and is_free(p)), None)
        if found is None:
            raise ConfigError(f"no free port for {name} in {port} to {port + SEARCH_SPAN - 1}; pass --{name}-port")
        if found != port:
            notes.append(f"port {port} for {name} is taken by another program; using {found} instead")
        chosen[name] = found
    return Ports(**chosen), tuple(notes)


def endpoint_ports(
    products: Sequence[str], ports: Ports, *, is_free: Callable[[int], bool] = is_free
) -> dict[str, int]:
    """Product → port of its model server: `ports.endpoint` for the first, the next free ones above for the others.

    Raises: ConfigError if nothing is free within SEARCH_SPAN of it.
    """
    taken = set(dataclasses.asdict(ports).values())
    above = range(ports.endpoint + 1, min(ports.endpoint + 1 + SEARCH_SPAN, MAX_PORT + 1))
    free = (port for port in above if port not in taken and is_free(port))
    found = dict(zip(products, itertools.chain([ports.endpoint], free), strict=False))
    if len(found) < len(products):
        raise ConfigError(
            f"no free port for the model server of {products[len(found)]} in {above.start} to {above.stop - 1}; pass "
            "--endpoint-port"
        )
    return found
