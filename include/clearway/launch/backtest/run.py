"""Everything behind `replay --policy`: the past read or made, the policies played, the page written."""

import logging
from collections.abc import Sequence
from typing import Any

from clearway.contracts.codec import to_jsonable
from clearway.infra.environment import Environment
from clearway.infra.layout import STORY, Layout
from clearway.infra.storage import open_storage
from clearway.launch.backtest.models import KeptModels
from clearway.launch.backtest.page import render
from clearway.launch.backtest.policies import accounts
from clearway.launch.backtest.replay import Replay
from clearway.launch.backtest.year import read_year
from clearway.product import LoadedProduct

logger = logging.getLogger("clearway.launch")

FOLDER = "backtest"


def backtest(env: Environment, product: LoadedProduct, *, names: Sequence[str]) -> dict[str, Any]:
    """An account per policy, and where the page is. The first call trains a model per batch; later ones look up.

    Raises: ConfigError for a product whose data has no end, or that has no tabular model.
    """
    home = env.home / FOLDER / product.name
    year = read_year(env, product, home)
    models = KeptModels(year, product, home)
    for number, week in enumerate(year.model_weeks, start=1):
        if not models.has(week):
            logger.info("model %d of %d, with the batch of %s", number, len(year.model_weeks), year.batch_ids[week])
        models.scores(week)
    replay = Replay(year, product, models)
    told = accounts(replay, names)
    uri = Layout(env.store_root, product.name).backtest(STORY)
    open_storage(env.store_root).write(uri, render(replay, told))
    return {
        "product": product.name,
        "batches": [year.batch_ids[week] for week in year.weeks],
        "policies": [to_jsonable(account) for _, account in told.values()],
        "page": uri,
    }
