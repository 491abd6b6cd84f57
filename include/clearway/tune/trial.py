"""One trial of a tuning job: what SageMaker's machine runs, by the executable `train` of the image.

    python -m clearway.tune.trial [--ml /opt/ml]

Its values come from SageMaker's file of hyper-parameters, rows and settings from the study's folder in the store. Its
loss is a line of its output; a trial that has none says why in SageMaker's file for that.
"""

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path

from clearway.contracts.errors import ClearwayError
from clearway.engine.world import make_deterministic
from clearway.infra.aws.tuning import LINE
from clearway.infra.storage import join, open_storage
from clearway.tune import translation
from clearway.tune.brief import BRIEF, ROWS, Brief, read_rows
from clearway.tune.kinds import Judged, searchable
from clearway.tune.objective import judged
from clearway.tune.proposals import distributions

ML = Path("/opt/ml")
HYPERPARAMETERS, FAILURE = Path("input/config/hyperparameters.json"), Path("output/failure")
MAX_FAILURE_CHARS = 1000  # SageMaker shows 1,024
EXIT_REFUSED = 2


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 with a loss; 2 for values that cannot be trained on, and whatever else is ours to say."""
    parser = argparse.ArgumentParser(prog="python -m clearway.tune.trial", description="One trial of a tuning job.")
    parser.add_argument("--ml", type=Path, default=ML, metavar="FOLDER", help="SageMaker's folder of the container")
    ml = parser.parse_args(arguments).ml
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        found = trial(json.loads((ml / HYPERPARAMETERS).read_text(encoding="utf-8")))
    except ClearwayError as error:
        (ml / FAILURE).parent.mkdir(parents=True, exist_ok=True)
        (ml / FAILURE).write_text(str(error)[:MAX_FAILURE_CHARS], encoding="utf-8")
        logging.getLogger("clearway.tune").error("%s", error)
        return EXIT_REFUSED
    sys.stdout.write(LINE.format(value=found.loss) + "\n")
    return 0


def trial(texts: dict[str, str]) -> Judged:
    """Train and judge. `texts`: as SageMaker gives them. Raises: DataError, Unmeasurable."""
    study = texts["study"]
    storage = open_storage(study)
    brief = Brief.from_json(storage.read(join(study, BRIEF)))
    make_deterministic(brief.num_threads)
    model, window = brief.product.spec.model, brief.windows[0]
    params = translation.params_of(texts, distributions(model, brief.tune.space))
    with tempfile.TemporaryDirectory(prefix="clearway-trial-") as folder:
        (Path(folder) / ROWS).write_bytes(storage.read(join(study, ROWS)))
        rows = read_rows(Path(folder))
        return judged(
            searchable(brief.product),
            window.older(rows),
            window.newer(rows),
            product=brief.product,
            settings=model.overridden(params),
            tune=brief.tune,
            report=lambda *_: None,
        )


if __name__ == "__main__":
    sys.exit(main())
