"""Submitters of AWS jobs killed at random moments: duplicate jobs, and jobs that nobody owns.

    python tests/benchmarks/sweep_aws_kill.py [--stories 100] [--first-seed 1000]

Each story is a job on one of the three services as tests/moto_server.py models them: one to three processes that submit
it and wait for it die by SIGKILL within 0.6 s, then one lives and reads the result. Right: the job started once, and
ended with its result. One line of JSON; exit code 1 if a story is not right.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aws_kill_kit import story
from aws_kit import STAGE_ON, account, moto_server, variables
from clearway.infra.aws.jobs import SERVICES
from clearway.infra.environment import Environment
from jobs_kit import STAGE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=1000)
    args = parser.parse_args()
    deaths, num_starts, wrong = 0, 0, list[str]()
    with moto_server() as endpoint, tempfile.TemporaryDirectory() as folder:
        os.environ.update(variables(endpoint))
        script = Path(folder) / "stage.py"
        script.write_text(STAGE)
        base = Environment.load({"CLEARWAY__HOME": folder})
        clouds = {name: account(base, stage=script, services={STAGE_ON[name]: name}) for name in sorted(SERVICES)}
        for number in range(args.stories):
            seed, service = args.first_seed + number, sorted(SERVICES)[number % len(SERVICES)]
            try:
                died, started = story(
                    clouds[service], script, Path(folder) / str(seed), stage=STAGE_ON[service], seed=seed
                )
            except Exception as error:  # noqa: BLE001 - the next story goes on
                wrong.append(f"{service} {seed}: {type(error).__name__}: {str(error)[:200]}")
                continue
            deaths, num_starts = deaths + died, num_starts + started
            if started != 1:
                wrong.append(f"{service} {seed}: started {started} times")
    result = {"stories": args.stories, "killed": deaths, "jobs_started": num_starts, "wrong": wrong}
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
