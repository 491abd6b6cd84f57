"""Every step x every phase of saving x both ranks of a 40-step run on two gloo ranks: killed, resumed, compared.

    python tests/benchmarks/sweep_kills.py --piece 1/4 --minutes 9

Prints one line per phase and rank: kills, how many ended at the bits of the undisturbed run; then every other.
Pieces are every n-th kill, so that each covers all phases; `--minutes` ends a piece early and says how far it came.
"""
# ruff: noqa: T201

import argparse
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
import torch.distributed.tensor.parallel  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine_kill_kit import all_kills, kill_and_resume, undisturbed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--piece", default="1/1")
    parser.add_argument("--minutes", type=float, default=9.0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    index, count = map(int, args.piece.split("/"))
    kills, started_s = all_kills()[index - 1 :: count], time.monotonic()
    done, good, wrong = Counter[str](), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        whole = undisturbed(Path(folder) / "whole")
        for i, kill in enumerate(kills):
            if time.monotonic() - started_s > args.minutes * 60:
                break
            key = f"{kill.phase} rank {kill.rank}"
            error = kill_and_resume(whole, kill, Path(folder) / str(i))
            done[key] += 1
            good[key] += not error
            if error:
                wrong.append(f"{kill}: {error}")
    for key in done:
        print(f"{key:28} {good[key]:4} of {done[key]:4} equal")
    print(f"{'all':28} {good.total():4} of {done.total():4} equal, {len(kills)} asked for, piece {args.piece}")
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
