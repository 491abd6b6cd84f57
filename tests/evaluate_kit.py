"""Inputs of an evaluation, with the yardsticks that a release has fitted by then."""

from clearway.contracts.refs import DatasetRef, ModelRef, YardsticksRef
from clearway.evaluate import ahead
from clearway.evaluate.spec import Inputs, YardsticksInputs
from clearway.infra.environment import Environment
from clearway.product import LoadedProduct


def yardsticks_of(
    dataset: DatasetRef, *, product: LoadedProduct, env: Environment, release_id: str = "r1"
) -> YardsticksRef:
    """Fitted, or found where the release has them already."""
    inputs = YardsticksInputs(product=product.name, release_id=release_id, dataset=dataset)
    return ahead.run(inputs, product=product, env=env).yardsticks


def evaluate_inputs(
    dataset: DatasetRef, model: ModelRef, *, product: LoadedProduct, env: Environment, release_id: str = "r1"
) -> Inputs:
    """Of a candidate on a dataset."""
    return Inputs(
        product=product.name,
        release_id=release_id,
        dataset=dataset,
        model=model,
        yardsticks=yardsticks_of(dataset, product=product, env=env, release_id=release_id),
    )
