"""The stages that differ from StageOperator only by name."""

from clearway_airflow.operators.stage import StageOperator

# Jobs that take all cores and most of the memory for as long as they run: one at a time, over all products.
HEAVY_POOL = "clearway_heavy"


class PreprocessOperator(StageOperator):
    """Features by Spark."""

    stage = "preprocess"


class ValidateOperator(StageOperator):
    """Own gate, Great Expectations, distributions."""

    stage = "validate"


class TuneOperator(StageOperator):
    """An Optuna study, if the product asks for one."""

    stage = "tune"
    stage_pool = HEAVY_POOL


class TrainOperator(StageOperator):
    """torchrun."""

    stage = "train"
    stage_pool = HEAVY_POOL


class EvaluateOperator(StageOperator):
    """The gates."""

    stage = "evaluate"


class DeployOperator(StageOperator):
    """Traffic."""

    stage = "deploy"


class ServeOperator(StageOperator):
    """The batch's rows through the live endpoint, as the product's callers send them."""

    stage = "serve"


class MonitorOperator(StageOperator):
    """Drift, performance, and whether to retrain."""

    stage = "monitor"
