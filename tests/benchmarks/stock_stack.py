"""The stock arm of bench_release.py: each part as its tool's own manual shows it, run as a process of its own.

    python tests/benchmarks/stock_stack.py stage|validate|package|score|drift …

What a team that knows these tools would write on a first day, with their default settings:

stage     the same DataFrame code on JVM Spark, `local[*]`: 200 shuffle partitions, adaptive execution, Java's default
          compiler and collector. Only the time zone, 2 GB for the driver (1 GB is the default, and tight) and the
          loopback address are set. A week is computed from that week and a look-back of 15 days, as Clearway does it;
          without that idea a team recomputes all history (on Sail eleven times as much), which is not charged here.
validate  Great Expectations on JVM Spark: a checkpoint over the expectations of product.yaml, with Data Docs. What
          Clearway asks in a gate of its own (rows, columns, share of missing values) is asked as expectations, since
          this team has no other place to ask it.
package   encoder and graph as an MLflow pyfunc with a signature. Its predict is vectorised, not row by row.
score     a week's rows in requests of 500 to `mlflow models serve`, scores kept as Parquet. Nothing is logged.
drift     Evidently's DataDriftPreset as it comes, on all rows of training period and week; page saved.
"""

import json
import os
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clearway.infra.environment import project_root
from clearway.product_yaml import find_product

ROWS_PER_REQUEST = 500
SIGNATURE_ROWS = 1000
MODEL_CODE = '''
"""Encoder and graph of the released package behind MLflow's generic Python model."""
import mlflow, onnxruntime as ort, pyarrow as pa
from clearway.packaging.encoder import Encoder

class Scores(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.session = ort.InferenceSession(context.artifacts["model"], providers=["CPUExecutionProvider"])
        self.encoder = Encoder.from_json(open(context.artifacts["encoder"], "rb").read())
        fields = [(name, pa.float64()) for name in self.encoder.numeric]
        self.schema = pa.schema(fields + [(name, pa.string()) for name in self.encoder.categorical])

    def predict(self, context, model_input, params=None):
        table = pa.Table.from_pandas(model_input, schema=self.schema, preserve_index=False)
        numeric, categorical = self.encoder.encode_table(table)
        return self.session.run(["score"], {"numeric": numeric, "categorical": categorical})[0]

mlflow.models.set_model(Scores())
'''


@contextmanager
def stock_session(_env: Any = None) -> Iterator[Any]:
    """JVM Spark as a manual starts it."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("stock").master("local[*]").config("spark.driver.memory", "2g")
    builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    session = builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
    try:
        yield session
    finally:
        session.stop()


def stage(*words: str) -> None:
    """A stage as it is, but on a stock session."""
    from clearway.__main__ import main
    from clearway.infra import spark

    spark.find_java(Path(os.environ["CLEARWAY__HOME"]))
    spark.spark_session = stock_session
    code = main(words)
    if code:
        sys.exit(code)


def validate(task: str, folder: str, questions: str = "all") -> None:
    """One checkpoint over all feature files; `folder`/verdict.json says `pass` or `fail`.

    Args:
        questions: `few` for those of product.yaml alone (bench_stock_variants.py).
    """
    frames = json.loads(Path(task).read_text(encoding="utf-8"))
    import great_expectations as gx
    from great_expectations.checkpoint import UpdateDataDocsAction

    context = gx.get_context(mode="file", project_root_dir=folder)
    source = context.data_sources.add_spark("features")
    batch = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    asked = expectations(frames["product"], has_gate=questions == "all")
    suite = context.suites.add(gx.ExpectationSuite(name="features", expectations=asked))
    definition = gx.ValidationDefinition(name="features", data=batch, suite=suite)
    definition = context.validation_definitions.add(definition)
    actions = [UpdateDataDocsAction(name="docs")]
    checkpoint = gx.Checkpoint(name="features", validation_definitions=[definition], actions=actions)
    with stock_session() as session:
        rows = session.read.parquet(*frames["reference"])
        result = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": rows})
    verdict = {"verdict": "pass" if result.success else "fail", "num_expectations": len(suite.expectations)}
    Path(folder, "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")


def expectations(product: str, *, has_gate: bool) -> list[Any]:
    """Those of product.yaml; with `has_gate` also what Clearway's own gate asks of rows, columns, missing values."""
    import great_expectations.expectations as gxe

    spec = find_product(project_root() / "include" / "products", product).spec
    rules, columns = spec.validate_, spec.features.columns
    wanted = {c: rules.completeness.get(c, rules.min_completeness) for c in columns}
    found = [getattr(gxe, "Expect" + e.expect.title().replace("_", ""))(**e.args) for e in rules.expectations]
    if not has_gate:
        return found
    found.append(gxe.ExpectTableRowCountToBeBetween(min_value=rules.min_rows))
    found.append(gxe.ExpectTableColumnsToMatchSet(column_set=["key", "event_time", "day", *columns], exact_match=True))
    present = [gxe.ExpectColumnValuesToNotBeNull(column=c, mostly=share) for c, share in wanted.items() if share > 0]
    return [*found, *present]


def package(task: str, folder: str) -> None:
    """`folder`/mlflow out of `folder`/model.onnx and encoder.json; models from code, so no pickle."""
    import mlflow
    import numpy as np
    from mlflow.models import infer_signature

    frames = json.loads(Path(task).read_text(encoding="utf-8"))
    code = Path(folder, "model_code.py")
    code.write_text(MODEL_CODE, encoding="utf-8")
    rows = read_rows(frames, "current").head(SIGNATURE_ROWS)[frames["numeric"] + frames["categorical"]]
    mlflow.pyfunc.save_model(
        f"{folder}/mlflow",
        python_model=str(code),
        artifacts={"model": f"{folder}/model.onnx", "encoder": f"{folder}/encoder.json"},
        signature=infer_signature(rows, np.zeros(len(rows), np.float32)),
        pip_requirements=[],
    )


def score(task: str, url: str, target: str) -> None:
    """Scores of the week by key, as the server answers them."""
    import pandas as pd

    frames = json.loads(Path(task).read_text(encoding="utf-8"))
    rows = read_rows(frames, "current")
    scores: list[float] = []
    for start in range(0, len(rows), ROWS_PER_REQUEST):
        chunk = rows.iloc[start : start + ROWS_PER_REQUEST][frames["numeric"] + frames["categorical"]]
        body = f'{{"dataframe_split": {chunk.to_json(orient="split", index=False, double_precision=15)}}}'
        request = urllib.request.Request(f"{url}/invocations", data=body.encode())
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=120) as answer:
            scores += json.loads(answer.read())["predictions"]
    pd.DataFrame({"key": rows["key"], "score": scores}).to_parquet(target)


def drift(task: str, folder: str) -> None:
    """`folder`/drift.html, and the share of drifted columns with Evidently's own answer in `folder`/drift.json."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    frames = json.loads(Path(task).read_text(encoding="utf-8"))
    definition = DataDefinition(numerical_columns=frames["numeric"], categorical_columns=frames["categorical"])
    columns = frames["numeric"] + frames["categorical"]
    reference, current = (
        Dataset.from_pandas(read_rows(frames, name)[columns], data_definition=definition)
        for name in ("reference", "current")
    )
    preset = DataDriftPreset()
    snapshot = Report([preset]).run(current, reference)
    snapshot.save_html(f"{folder}/drift.html")
    counted = next(m for m in snapshot.dict()["metrics"] if "DriftedColumnsCount" in m["metric_name"])
    share = counted["value"]["share"]
    answer = {"drifted_share": share, "has_drifted": share >= preset.drift_share}
    Path(folder, "drift.json").write_text(json.dumps(answer), encoding="utf-8")


def read_rows(frames: dict[str, Any], name: str) -> Any:
    """All rows of one period, as a pandas frame."""
    import pandas as pd

    return pd.concat([pd.read_parquet(path) for path in frames[name]], ignore_index=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    # Nobody is called: both are read when the library is imported.
    os.environ["GX_ANALYTICS_ENABLED"], os.environ["DO_NOT_TRACK"] = "false", "1"
    verbs = {"stage": stage, "validate": validate, "package": package, "score": score, "drift": drift}
    verbs[sys.argv[1]](*sys.argv[2:])
