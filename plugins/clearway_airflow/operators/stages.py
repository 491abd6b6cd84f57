"""The stages that differ from StageOperator only by name."""

from clearway_airflow.operators.on_devices import DeviceStageOperator
from clearway_airflow.operators.stage import StageOperator


class PreprocessOperator(StageOperator):
    """Features by Spark."""

    stage = "preprocess"


class ValidateOperator(StageOperator):
    """Own gate, Great Expectations, distributions."""

    stage = "validate"


class TuneOperator(DeviceStageOperator):
    """An Optuna study, if the product asks for one."""

    stage = "tune"


class TrainOperator(DeviceStageOperator):
    """torchrun."""

    stage = "train"


class YardsticksOperator(StageOperator):
    """What candidates are held against, fitted while one is trained."""

    stage = "yardsticks"


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
