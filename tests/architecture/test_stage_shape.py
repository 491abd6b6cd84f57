"""Every stage has the same shape, so that who knows one finds their way in all."""

import dataclasses
import importlib
import inspect
import subprocess
import sys

import pytest

from clearway.infra.environment import project_root

ROOT = project_root()
STAGES = ("ingest", "preprocess", "validate", "tune", "train", "evaluate", "approve", "deploy", "serve", "monitor")
HEAVY = [
    "torch",
    "pyspark",
    "pysail",
    "pandas",
    "numpy",
    "pyarrow",
    "great_expectations",
    "mlflow",
    "evidently",
    "boto3",
    "optuna",
    "lightgbm",
    "sklearn",
    "scipy",
    "onnxruntime",
    "onnx",
    "sqlalchemy",
    "httpx",
    "fastapi",
]
# What a task process may load before it starts the stage's own job process.
HEAVY_FOR_RUN = [name for name in HEAVY if name not in {"numpy", "pyarrow", "sqlalchemy", "httpx"}]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_contract_verb_room_guide_and_page(stage: str) -> None:
    folder = ROOT / "include" / "clearway" / stage
    for path in (folder / "spec.py", folder / "run.py", folder / "README.md", ROOT / "docs" / "stages" / f"{stage}.md"):
        assert path.is_file(), f"{path.relative_to(ROOT)} is missing"
        assert len(path.read_text(encoding="utf-8")) > 200, f"{path.relative_to(ROOT)} says nothing"


@pytest.mark.parametrize("stage", STAGES)
def test_inputs_and_outputs_are_plain_frozen_values(stage: str) -> None:
    spec = importlib.import_module(f"clearway.{stage}.spec")
    for cls in (spec.Inputs, spec.Outputs):
        assert dataclasses.is_dataclass(cls)
        assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert inspect.getdoc(cls), f"{stage}.{cls.__name__} has no docstring"
    assert {"product", "release_id"} <= {f.name for f in dataclasses.fields(spec.Inputs)}
    assert {"verdict", "reason"} <= {f.name for f in dataclasses.fields(spec.Outputs)}


def type_name(annotation: object) -> str:
    """Last part of a type's name, also where it is only known to type checkers and written as text."""
    return str(getattr(annotation, "__name__", annotation)).rsplit(".", 1)[-1]


@pytest.mark.parametrize("stage", STAGES)
def test_the_verb_has_the_common_signature(stage: str) -> None:
    run = importlib.import_module(f"clearway.{stage}.run").run
    signature = inspect.signature(run)
    inputs, *context = signature.parameters.values()
    assert type_name(inputs.annotation) == "Inputs"
    assert type_name(signature.return_annotation) == "Outputs"
    required = {p.name: p for p in context if p.default is inspect.Parameter.empty}
    assert {n: type_name(p.annotation) for n, p in required.items()} == {
        "product": "LoadedProduct",
        "env": "Environment",
    }
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in context)


def loaded_heavy(modules: list[str], heavy: list[str]) -> list[str]:
    script = f"import sys, {', '.join(modules)}; print(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.split()


def test_contracts_of_all_stages_load_nothing_heavy() -> None:
    modules = [f"clearway.{stage}.spec" for stage in STAGES]
    assert loaded_heavy([*modules, "clearway.product_yaml", "clearway.infra.environment"], HEAVY) == []


def test_verbs_of_all_stages_load_nothing_heavy() -> None:
    assert loaded_heavy([f"clearway.{stage}.run" for stage in STAGES], HEAVY_FOR_RUN) == []


def test_every_room_has_a_guide() -> None:
    rooms = [p for p in (ROOT / "include" / "clearway").iterdir() if (p / "__init__.py").is_file()]
    missing = sorted(p.name for p in rooms if not (p / "README.md").is_file())
    assert missing == []
