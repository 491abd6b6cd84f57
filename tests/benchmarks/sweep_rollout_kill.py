"""kill -9 of the deploying process at every fault point of every strategy, under live callers: how each story ends.

    python tests/benchmarks/sweep_rollout_kill.py [--plan canary] [--bad | --good] [--healer retry] [--limit-s 550]

A real server process answers 150 requests a second from first to last; every release is a real process of its own, and
dies by SIGKILL at one fault point in one step of its plan (`tests/live_rollout_kit.py`). Then a retry comes at once, or
after the server's dead-man timer has given the traffic back, or the reconciler comes. A story is right if it ends in
full success or full return as the intent stored at the kill says, with nothing left over, no failed request, no answer
by a version that did not serve, and no moment in which a share of the traffic had no owner. One line of JSON per plan,
candidate and healer; exit code 1 if a story is not right. `left`: those that `--limit-s` left no time for.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from live_rollout_kit import PLANS, Healer, LiveStories, NotReached, Place, Told, live_stories

NUM_TRIES = 5


def sweep(stories: LiveStories, plan: str, healer: Healer, *, is_bad: bool, deadline_s: float) -> dict[str, object]:
    """Every place of one plan, each killed once."""
    places = stories.undisturbed(PLANS[plan], is_bad=is_bad)
    outcomes, wrong, num_left, num_requests = Counter[str](), list[str](), 0, 0
    for place in places:
        if time.monotonic() > deadline_s:
            num_left += 1
            continue
        try:
            told = tell(stories, plan, place, healer, is_bad=is_bad)
        except AssertionError as error:
            wrong.append(f"{place}: {str(error)[:300]}")
            continue
        outcomes[told.outcome.value if told.outcome else "nothing had moved"] += 1
        num_requests += told.num_requests
    return {
        "plan": plan,
        "candidate": "bad" if is_bad else "good",
        "healer": healer,
        "kills": len(places) - num_left,
        "outcomes": dict(outcomes),
        "wrong": wrong,
        "requests": num_requests,
        "left": num_left,
    }


def tell(stories: LiveStories, plan: str, place: Place, healer: Healer, *, is_bad: bool) -> Told:
    """The story, once more if chance kept it from coming by the place."""
    for _ in range(NUM_TRIES - 1):
        with contextlib.suppress(NotReached):
            return stories.tell(PLANS[plan], place, healer, is_bad=is_bad)
    return stories.tell(PLANS[plan], place, healer, is_bad=is_bad)


def main() -> int:
    """Run what was chosen; 0 if every story was right."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan", choices=PLANS, action="append")
    parser.add_argument("--healer", choices=get_args(Healer), action="append")
    parser.add_argument("--limit-s", type=float, default=float("inf"))
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--bad", action="store_true")
    kind.add_argument("--good", action="store_true")
    chosen = parser.parse_args()
    kinds = [is_bad for is_bad in (False, True) if (chosen.bad, chosen.good) != (not is_bad, is_bad)]
    deadline_s, num_wrong = time.monotonic() + chosen.limit_s, 0
    with tempfile.TemporaryDirectory(prefix="sweep-kill-") as folder, live_stories(Path(folder)) as stories:
        for plan in chosen.plan or PLANS:
            for is_bad in kinds:
                for healer in chosen.healer or get_args(Healer):
                    found = sweep(stories, plan, healer, is_bad=is_bad, deadline_s=deadline_s)
                    num_wrong += len(found["wrong"])  # type: ignore[arg-type]
                    print(json.dumps(found), flush=True)  # noqa: T201 - what a benchmark is for
    return int(num_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
