"""Who used how many device-seconds: one small record per job, written once when the job leaves its devices."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from clearway.contracts.codec import from_jsonable, to_jsonable
from clearway.contracts.manifest import canonical_json
from clearway.infra.storage import Storage, join

DAY_S = 86_400.0
# After eight half-lives 0.4 % of a use is left: less than its neighbours' noise, and records that old are not read.
NUM_HALF_LIVES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One stay of a job on devices. `started_s`, `ended_s`: Unix seconds."""

    team: str
    product: str
    job_id: str
    slots: int
    started_s: float
    ended_s: float


def faded_usage(uses: Iterable[Use], *, now_s: float, half_life_s: float) -> dict[str, float]:
    """Device-seconds per team, each second counted as 0.5 ** (its age / half-life).

    The integral over the stay, so that one long job and its many short pieces count the same.
    """
    usage: dict[str, float] = {}
    rate = math.log(2) / half_life_s
    for use in uses:
        ended_s = min(use.ended_s, now_s)
        if use.started_s < ended_s:
            decay = math.exp(-rate * (now_s - ended_s)) - math.exp(-rate * (now_s - use.started_s))
            usage[use.team] = usage.get(use.team, 0.0) + use.slots * decay / rate
    return usage


class Ledger:
    """The records of one device class, by day."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, join(folder, "usage")

    def record(self, use: Use) -> bool:
        """Keep a use; False if this job's is on record already."""
        address = join(self._folder, _day(use.ended_s), f"{use.job_id}.json")
        return self._storage.create(address, canonical_json(to_jsonable(use)))

    def recent(self, *, now_s: float, half_life_s: float) -> list[Use]:
        """Every use that still counts."""
        num_days = math.ceil(NUM_HALF_LIVES * half_life_s / DAY_S)
        days = (_day(now_s - back * DAY_S) for back in range(-1, num_days + 1))
        found = (uri for day in days for uri in self._storage.list(join(self._folder, day)))
        return [from_jsonable(Use, json.loads(self._storage.read(uri))) for uri in found]


def _day(at_s: float) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at_s)).strftime("%Y-%m-%d")
