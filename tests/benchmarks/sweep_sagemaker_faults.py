"""Releases on a SageMaker endpoint while calls fail: the same final state, or a clean failure in time.

    python tests/benchmarks/sweep_sagemaker_faults.py [--runs 200] [--share 0.1 0.3] [--hopeless 20]
        [--taken-back 50] [--first-seed 1000] [--strategy shadow]

Each run is a champion in service and a candidate released on it, blue-green or canary in turn (`--strategy shadow`:
copies of requests, then all at once), by the real deploy stage against tests/sagemaker_server.py. Every call is
refused, broken, dropped, loses its answer after it took effect, or gives half of it, with this probability. A task that
fails is retried as Airflow does. Right: promoted, and after the reconciler has come by one endpoint, no variant nobody
needs, no model twice. `--hopeless` runs at 0.9 must fail with an error of ours, leave the champion its traffic, and
succeed once calls work again. `--taken-back` runs have an update that SageMaker takes back, silently, with a reason,
later, or with another model in it, and must be red with the reason; with shadow it is the one that brings the copies.
One line of JSON; exit code 1 if a run is not right.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest

from aws_kit import Trouble, at_random
from clearway.contracts.errors import ClearwayError
from clearway.contracts.release_document import Outcome
from clearway.infra.environment import Environment
from sagemaker_kit import PLAN, SHADOW, hurry
from sagemaker_story_kit import tell_copies_taken_back, tell_taken_back, told

BLUE_GREEN = PLAN.model_copy(update={"strategy": "blue_green"})
MAX_FAKE_S = 1500.0  # of a task at 0.9, by the clock that endpoint and driver share


def local(folder: Path) -> Environment:
    return Environment.load({"CLEARWAY__HOME": str(folder), "CLEARWAY__STORAGE__ROOT": (folder / "store").as_uri()})


def run(folder: Path, *, share: float, seed: int, is_shadow: bool) -> int:
    """One release; how many calls it made. AssertionError if it does not end as it must."""
    env = local(folder)
    plan, trouble = SHADOW if is_shadow else PLAN if seed % 2 else BLUE_GREEN, Trouble()
    with told(env, folder / "containers", trouble=trouble, capture_pct=100 if is_shadow else 0) as story:
        story.street.per_s = 1.0 if is_shadow else story.street.per_s
        trouble.plan, trouble.num_calls = at_random(share, seed=seed), 0
        if share > 0.5:
            began_s = story.street.now_s()
            with contextlib.suppress(ClearwayError):
                story.release(0.2, "r2", plan)
            assert story.street.now_s() - began_s < MAX_FAKE_S, "it took too long to give up"
            trouble.plan = lambda _: ""
        outputs = story.insistent("r2", plan)
        trouble.plan = lambda _: ""
        assert outputs.verdict.value == "pass", outputs.reason
        story.reconcile()
        story.check_rest(Outcome.PROMOTED, "r2")
        story.check_no_duplicates()
        assert [text for text in story.account.misfits if "DestinationS3Uri" not in text] == []  # here it is a folder
    return trouble.num_calls


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="over all shares")
    parser.add_argument("--share", type=float, nargs="+", default=[0.1, 0.3])
    parser.add_argument("--hopeless", type=int, default=20, help="runs at 0.9")
    parser.add_argument("--taken-back", type=int, default=50, help="updates that SageMaker takes back")
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--strategy", choices=["shadow"], help="instead of blue-green and canary in turn")
    args = parser.parse_args()
    is_shadow = args.strategy == "shadow"
    shares = [args.share[i % len(args.share)] for i in range(args.runs)] + [0.9] * args.hopeless
    num_calls, wrong, began_s = 0, list[str](), time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch)
        for number, share in enumerate(shares):
            seed = args.first_seed + number // len(args.share)
            with tempfile.TemporaryDirectory() as folder:
                try:
                    num_calls += run(Path(folder), share=share, seed=seed, is_shadow=is_shadow)
                except Exception as error:  # noqa: BLE001 - the next run goes on
                    wrong.append(f"{share} {seed}: {type(error).__name__}: {str(error)[:300]}")
        for seed in range(args.taken_back):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    tell = tell_copies_taken_back if is_shadow else tell_taken_back
                    tell(local(Path(folder)), Path(folder) / "containers", seed=seed)
                except Exception as error:  # noqa: BLE001 - the next run goes on
                    wrong.append(f"taken back {seed}: {type(error).__name__}: {str(error)[:300]}")
    counts = {"runs": len(shares), "taken_back": args.taken_back, "calls": num_calls}
    result = {**counts, "seconds": round(time.monotonic() - began_s, 1), "wrong": wrong}
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
