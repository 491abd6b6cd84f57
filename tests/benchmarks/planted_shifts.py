"""What the monitor answers when one thing changes on purpose, and how soon.

    python tests/benchmarks/planted_shifts.py [NUM_SEEDS]

Per kind of change: share of worlds in which the right answer came within twelve weeks, weeks until it did (median, 90th
percentile), worlds with a retraining that was wrong, and wrong answers in the calm weeks before. tests/shifts_kit.py
holds the world; everything is measured and decided by the monitor's own code under the default policy. Markdown rows.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy as np

from clearway.monitor.decide import Answer
from clearway.product_monitor import Monitor
from shifts_kit import CASES, NUM_CALM, UNLABELLED, decisions


def row(case: str, num_seeds: int) -> str:
    """One line of the table."""
    right, weeks, wrong, calm = CASES[case][1], [], 0, 0
    fine = {Answer.HOLD, Answer.UNKNOWN} if case in UNLABELLED else {Answer.HOLD}
    for seed in range(num_seeds):
        found = [decision.answer for decision in decisions(case, Monitor(), seed=seed)]
        calm += sum(answer not in fine for answer in found[:NUM_CALM])
        after = found[NUM_CALM:]
        first = next((i for i, answer in enumerate(after) if answer in right), None)
        weeks += [] if first is None else [first + 1]
        wrong += Answer.RETRAIN in after and Answer.RETRAIN not in right
    delay = f"{np.median(weeks):.0f} / {np.quantile(weeks, 0.9):.0f}" if weeks else "-"
    names = ", ".join(sorted(answer.value for answer in right))
    cells = (case, names, f"{len(weeks)}/{num_seeds}", delay, f"{wrong}/{num_seeds}", f"{calm}/{num_seeds * NUM_CALM}")
    return f"| {' | '.join(cells)} |"


def main(num_seeds: int = 50) -> None:
    sys.stdout.write(
        "| change | right answer | came | weeks until it came | wrong retrainings | calm weeks answered wrong |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|\n")
    for case in CASES:
        sys.stdout.write(row(case, num_seeds) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
