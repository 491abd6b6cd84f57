"""Named fault points: `fault("train.after_checkpoint")` does nothing unless CLEARWAY_FAULT names it.

CLEARWAY_FAULT="<point>=<kill|raise|stop|sleep:SECONDS>[@N]" acts at the N-th visit (default the first). A kill is
SIGKILL to this very process: no handler, no atexit, as when the machine loses power. A stop is SIGSTOP: it goes on when
somebody sends SIGCONT, as after a long pause of the machine. Refused where CLEARWAY_ENV is not local.
"""

import os
import signal
import time
from collections import Counter

from clearway.contracts.errors import ConfigError

_visits: Counter[str] = Counter()


class InjectedFault(RuntimeError):
    """Raised by a `raise` fault."""


def fault(point: str) -> None:
    """Mark a place where a test may crash the process."""
    plan = os.environ.get("CLEARWAY_FAULT", "")
    if not plan:
        return
    name, _, action = plan.partition("=")
    if name != point:
        return
    if os.environ.get("CLEARWAY_ENV", "local") != "local":
        raise ConfigError(f"CLEARWAY_FAULT={plan!r} is set outside the local environment; unset it")
    action, _, nth = action.partition("@")
    _visits[point] += 1
    if _visits[point] == int(nth or 1):
        _act(action, point)


def _act(action: str, point: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "raise":
        raise InjectedFault(f"fault point {point}")
    elif action.startswith("sleep:"):
        time.sleep(float(action.removeprefix("sleep:")))
    else:
        raise ConfigError(f"fault action {action!r} is unknown; allowed: kill, raise, stop, sleep:SECONDS")
