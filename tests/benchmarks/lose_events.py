"""Retraining events lost, doubled and delayed at random: how many retrainings are lost, how many doubled?

    python tests/benchmarks/lose_events.py [NUM_TRIALS]

tests/events_kit.py says with which chances; store, claims and reconciler are real, the clock is not. The result
is one line of JSON.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from clearway.infra.environment import Environment
from clearway.product_yaml import find_product
from events_kit import NUM_DECISIONS, trial


def main(num_trials: int = 200) -> dict[str, int]:
    """All trials, each with a store of its own."""
    lost = doubled = sent = 0
    for seed in range(num_trials):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            env = Environment.load({"CLEARWAY__HOME": folder, "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
            found = trial(env, find_product(env.products, "flights"), seed=seed)
        lost, doubled, sent = lost + found.num_lost, doubled + found.num_doubled, sent + found.num_sent
    return {
        "trials": num_trials,
        "decisions": num_trials * NUM_DECISIONS,
        "steps": sent,
        "retrainings lost": lost,
        "retrainings doubled": doubled,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*(int(a) for a in sys.argv[1:]))) + "\n")
