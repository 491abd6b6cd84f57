"""A study from its dataset to its answer: rows and brief once, workers until all has ended, then the choice."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from clearway.contracts.errors import DataError
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import Storage, join, open_storage
from clearway.packaging.package import open_package
from clearway.product import LoadedProduct
from clearway.tune.agenda import Kind, Task
from clearway.tune.brief import BRIEF, ROWS, Brief, read_brief, write_rows
from clearway.tune.budget import Spent, spent
from clearway.tune.choosing import Choice, choice
from clearway.tune.crew import run_crew
from clearway.tune.journal import Journal
from clearway.tune.kinds import Words, searchable
from clearway.tune.proposals import distributions, grid, num_values
from clearway.tune.spec import Inputs
from clearway.tune.windows import by_day, trimmed, windows_of

LOG = logging.getLogger("clearway.tune")


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A study that has ended. `ended`: entries by task number; `params`: the answer, {} if product.yaml stands."""

    brief: Brief
    tasks: tuple[Task, ...]
    ended: dict[int, FrozenTrial]
    chosen: Choice
    params: dict[str, float]
    spent: Spent
    num_deaths: int

    @property
    def words(self) -> Words:
        """How this kind's figures are called."""
        return searchable(self.brief.product).words

    @property
    def trials(self) -> dict[int, FrozenTrial]:
        """Trials that ended, by index."""
        return {t.index: self.ended[t.number] for t in self.tasks if t.kind is Kind.TRIAL and t.number in self.ended}

    @property
    def num_windows(self) -> int:
        """Windows that something was judged on."""
        rounds = {task.round for task in self.tasks if task.number in self.ended}
        return min(len(rounds), len(self.brief.windows))


def search(inputs: Inputs, *, product: LoadedProduct, env: Environment, folder: Path) -> Searched:
    """Run what is left of the study. The first trial is product.yaml as written, so nothing worse can win.

    Raises: DataError if the model as written could not be judged; as `run_crew`.
    """
    brief = prepared(inputs, product=product, env=env, folder=folder)
    num_tasks = len(brief.tasks())
    num_left = num_tasks - len(Journal(folder).ended())
    LOG.info("%d of %d tasks to go, %d workers", num_left, num_tasks, brief.num_workers)
    if num_left:
        run_crew(brief, folder, env=env)
    return concluded(brief, folder)


def concluded(brief: Brief, folder: Path) -> Searched:
    """The answer of a study whose tasks have ended, whoever did them.

    Raises: DataError if the model as written could not be judged.
    """
    journal, tasks = Journal(folder), brief.tasks()
    ended = journal.ended()
    has_cost = num_values(brief.tune) > 1
    chosen = choice(tasks, ended, slack=brief.tune.slack, has_cost=has_cost)
    if chosen is None:
        raise DataError(
            f"the model as written could not be judged ({_first_reason(ended)}), so nothing can be compared with it; "
            "correct the model section of product.yaml"
        )
    return Searched(
        brief=brief,
        tasks=tasks,
        ended=ended,
        chosen=chosen,
        params=_params(tasks, ended, chosen, brief),
        spent=spent(brief, ended),
        num_deaths=journal.num_deaths(len(tasks)),
    )


def _params(tasks: tuple[Task, ...], ended: dict[int, FrozenTrial], chosen: Choice, brief: Brief) -> dict[str, float]:
    entry = next(ended[t.number] for t in tasks if t.kind is Kind.TRIAL and t.index == chosen.index)
    return {} if entry.params == brief.as_written else {n: float(entry.params[n]) for n in sorted(entry.params)}


def _first_reason(ended: dict[int, FrozenTrial]) -> str:
    return str(ended[0].user_attrs.get("refused", "")) if 0 in ended else "the budget ended before it"


def prepared(inputs: Inputs, *, product: LoadedProduct, env: Environment, folder: Path) -> Brief:
    """Make the study's folder ready for workers, or find it so.

    The brief is written by the first attempt and read by all: a champion or a setting that changes meanwhile changes
    nothing.
    """
    Journal.create(folder, num_values=num_values(product.spec.tune))
    if (folder / BRIEF).exists() and (folder / ROWS).exists():
        return read_brief(folder)
    storage, tune, model = open_storage(env.store_root), product.spec.tune, product.spec.model
    num_workers = env.jobs.num_tune_workers or env.jobs.num_threads
    champion = _champion(product, env, storage)
    num_trials = tune.num_trials
    if tune.sampler == "grid":
        points = grid(distributions(model, tune.space), tune.space, seed=model.seed)
        num_trials = min(num_trials, len(points) + 1 + bool(champion))
    num_wanted = math.ceil(num_trials / tune.refresh_every) + 1 if num_trials > tune.refresh_every else 1
    rows = by_day(searchable(product).rows(storage, inputs.dataset, product=product, env=env))
    rows, windows = trimmed(rows, windows_of(rows, max_rows=tune.max_rows, num_wanted=num_wanted))
    brief = Brief(
        product=product,
        champion=champion,
        windows=windows,
        num_trials=num_trials,
        num_workers=num_workers,
        num_threads=max(1, env.jobs.num_threads // num_workers),
        price_per_hour=env.jobs.price_per_hour,
    )
    if (folder / BRIEF).exists():  # only the rows were lost: what was decided stands
        brief = read_brief(folder)
    write_rows(rows, folder)
    open_storage(folder.as_uri()).write(join(folder.as_uri(), BRIEF), brief.to_json())
    return brief


def _champion(product: LoadedProduct, env: Environment, storage: Storage) -> dict[str, float]:
    """What serves now, moved into the space where it lies outside; {} if nothing serves, or if it is as written."""
    document, _ = open_release_store(env).read(product.name)
    if document.champion is None:
        return {}
    version, model, space = document.champion, product.spec.model, product.spec.tune.space
    facts = open_package(storage, version.uri, version.digest, key_folder=env.home / "keys").facts
    trained = facts["params"]
    found = {name: limits.nearest(trained.get(name, getattr(model, name))) for name, limits in sorted(space.items())}
    return {} if found == {name: getattr(model, name) for name in sorted(space)} else found


def forget_rows(folder: Path) -> None:
    """The study has ended and is on record: nobody reads its rows again."""
    (folder / ROWS).unlink(missing_ok=True)
