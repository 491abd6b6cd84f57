"""What the stack consists of: one command line per component, in starting order."""

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from clearway.launch.paths import StackPaths
from clearway.launch.ports import LOOPBACK, Ports

AIRFLOW_PARTS = ("api-server", "scheduler", "dag-processor", "triggerer")
ENDPOINT = "endpoint-"  # and the product: a model server


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One child process.

    Args:
        needs_database: start only after Airflow's database is migrated.
        is_needed: the stack is healthy without it, starts it last, and goes on if it stays dead.
        starts_work: stopped first; tasks still need the API server to report, and model servers serve to the last.
        stop_signal: what makes it leave in good order; api servers drain on SIGTERM, Airflow's jobs end on SIGINT.
    """

    name: str
    command: tuple[str, ...]
    needs_database: bool = False
    is_needed: bool = True
    starts_work: bool = False
    stop_signal: signal.Signals = signal.SIGTERM


def components(
    *, ports: Ports, paths: StackPaths, endpoints: Mapping[str, int], has_local_jobs: bool = True
) -> tuple[Component, ...]:
    """All components, slowest first: they start at the same time on few cores.

    `endpoints`: product → port of its model server; none where models are served elsewhere, to callers of their own.
    """
    python = (sys.executable, "-m")
    airflow = (*python, "airflow")
    served = [word for product in endpoints for word in ("--product", product)]
    callers = Component(name="callers", command=(*python, "clearway", "callers", *served), starts_work=True)
    warm = Component(
        name="warm-worker", command=(*python, "clearway", "warm-worker"), is_needed=False, starts_work=True
    )
    return (
        Component(name="mlflow", command=_mlflow(ports=ports, paths=paths)),
        *(
            Component(
                name=f"{ENDPOINT}{product}",
                command=(*python, "clearway.serve", "--product", product, "--port", str(port)),
            )
            for product, port in endpoints.items()
        ),
        *([callers] if endpoints else []),
        Component(name="api-server", command=(*airflow, "api-server"), needs_database=True),
        Component(
            name="scheduler",
            # Without the log servers: they would listen on every interface, and the UI reads the files itself.
            command=(*airflow, "scheduler", "--skip-serve-logs"),
            needs_database=True,
            starts_work=True,
            stop_signal=signal.SIGINT,
        ),
        Component(
            name="dag-processor",
            command=(*airflow, "dag-processor"),
            needs_database=True,
            stop_signal=signal.SIGINT,
        ),
        Component(
            name="triggerer",
            command=(*airflow, "triggerer", "--skip-serve-logs"),
            needs_database=True,
            starts_work=True,
            stop_signal=signal.SIGINT,
        ),
        *([warm] if has_local_jobs else []),
    )


def _mlflow(*, ports: Ports, paths: StackPaths) -> tuple[str, ...]:
    return (
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        LOOPBACK,
        "--port",
        str(ports.mlflow),
        "--workers",
        "1",
        "--backend-store-uri",
        f"sqlite:///{paths.mlflow / 'mlflow.db'}",
        "--artifacts-destination",
        str(paths.mlflow / "artifacts"),
    )
