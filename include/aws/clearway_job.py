"""Entry point of Spark jobs on EMR: the command line of the package that the job's environment holds."""

import os
import signal
import sys

from clearway.__main__ import main

if __name__ == "__main__":
    # Where EMR has no limit of its own; the signal's default is to end the process, and Spark's driver with it.
    signal.alarm(int(os.environ.get("CLEARWAY_MAX_SECONDS", "0")))
    sys.exit(main())
