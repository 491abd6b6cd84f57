from pathlib import Path

import pytest

from clearway.contracts.errors import ConfigError
from clearway.infra.cost.prices import service_of
from clearway.infra.environment import Environment, project_root


def test_the_local_environment_needs_no_variables() -> None:
    env = Environment.load({})
    assert (env.name, env.storage.kind, env.spark.engine, env.approve.mode) == ("local", "local", "sail", "auto")
    assert env.home == project_root() / ".clearway"
    assert env.products == project_root() / "include" / "products"


def test_everything_unset_lies_below_home(tmp_path: Path) -> None:
    env = Environment.load({"CLEARWAY__HOME": str(tmp_path)})
    assert env.store_root == (tmp_path / "store").as_uri()
    assert env.release_store_url == f"sqlite:///{tmp_path}/release.db"
    assert env.tracking_uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert env.admin_token_file == tmp_path / "serving" / "admin.token"


def test_variables_override_the_files() -> None:
    env = Environment.load(
        {
            "CLEARWAY__SPARK__ENGINE": "jvm",
            "CLEARWAY__JOBS__NUM_THREADS": "3",
            "CLEARWAY__STORAGE__ROOT": "file:///elsewhere",
            "CLEARWAY__RELEASE_STORE__URL": "postgresql+psycopg2://host/db",
            "CLEARWAY__ENDPOINT__ADMIN_TOKEN_FILE": "/run/secrets/token",
            "UNRELATED": "x",
        }
    )
    assert (env.spark.engine, env.jobs.num_threads, env.store_root) == ("jvm", 3, "file:///elsewhere")
    assert env.release_store_url == "postgresql+psycopg2://host/db"
    assert env.admin_token_file == Path("/run/secrets/token")
    assert env.jobs.poll_s == 0.1, "neighbours of an overridden value keep theirs"


@pytest.mark.parametrize(
    ("variables", "fragments"),
    [
        ({"CLEARWAY_ENV": "moon"}, ["CLEARWAY_ENV='moon'", "allowed: ['aws', 'local']"]),
        (
            {"CLEARWAY__SPARK__ENGINE": "flink"},
            ["'spark.engine' is 'flink'", "CLEARWAY__SPARK__ENGINE", "'jvm' or"],
        ),
        ({"CLEARWAY__JOBS__NUM_THREADS": "0"}, ["'jobs.num_threads' is '0'", "greater than or equal to 1"]),
        ({"CLEARWAY__JOBS__NUM_THREADS": "two"}, ["'jobs.num_threads' is 'two'", "integer"]),
        ({"CLEARWAY_ENV": "aws"}, ["''", "is not in S3", "CLEARWAY__STORAGE__ROOT"]),
        (
            {"CLEARWAY__STORAGE__KIND": "s3", "CLEARWAY__STORAGE__ROOT": "file:///x"},
            ["'file:///x'", "s3://bucket/prefix"],
        ),
        ({"CLEARWAY__SPARC__ENGINE": "jvm"}, ["'sparc'", "Extra inputs are not permitted", "'spark'"]),
        ({"CLEARWAY__JOBS__POL_S": "1"}, ["'jobs.pol_s' is '1'", "allowed: [", "'poll_s'"]),
        ({"CLEARWAY__DEVICES__CLASSES__CPU__SLOTZ": "2"}, ["'devices.classes.cpu.slotz' is '2'", "allowed: ['slots']"]),
        ({"CLEARWAY_HOME": "/x"}, ["CLEARWAY_HOME sets nothing", "two underscores"]),
        ({"CLEARWAY_JOBS__POLL_S": "1"}, ["CLEARWAY_JOBS__POLL_S sets nothing"]),
        ({"CLEARWAY_RELEASE_STORE_URL": "x"}, ["CLEARWAY_RELEASE_STORE_URL sets nothing"]),
        ({"CLEARWAY__HOME": "here"}, ["'home' is 'here'", "full path", "CLEARWAY__HOME"]),
        ({"CLEARWAY__HOME": ""}, ["'home' is ''", "full path"]),
        ({"CLEARWAY__HOME": "/x/what?"}, ["'home' is '/x/what?'", "holds '?'"]),
        ({"CLEARWAY__PRODUCTS": "~/products"}, ["'products' is '~/products'", "full path"]),
        ({"CLEARWAY__SPARK__ENGINE__X": "jvm"}, ["'spark.engine'"]),
        (
            {"CLEARWAY__AWS__SERVICES__TRAIN": "emr_serverless"},
            ["'aws.services.train' is 'emr_serverless'", "'sagemaker' or 'batch'", "CLEARWAY__AWS__SERVICES__TRAIN"],
        ),
        (
            {"CLEARWAY__AWS__SERVICES__PREPROCESS": "sagemaker_tuning"},
            ["'aws.services.preprocess' is 'sagemaker_tuning'", "'emr_serverless', 'emr_ec2', 'emr_eks' or 'batch'"],
        ),
        (
            {"CLEARWAY__AWS__SERVICES__DEPLOY": "sagemaker"},
            ["'aws.services.deploy'", "allowed: ['evaluate', 'preprocess', 'train', 'tune']"],
        ),
    ],
    ids=lambda v: next(iter(v.items()), None) if isinstance(v, dict) else "",
)
def test_a_wrong_setting_is_named_with_value_and_allowed(variables: dict[str, str], fragments: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Environment.load(variables)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_service_chosen_for_one_stage_leaves_the_others_where_they_were() -> None:
    env = Environment.load({"CLEARWAY__AWS__SERVICES__TUNE": "sagemaker_tuning"})
    assert {stage: service_of(env.aws, stage) for stage in ("preprocess", "tune", "train", "deploy")} == {
        "preprocess": "emr_serverless",
        "tune": "sagemaker_tuning",
        "train": "sagemaker",
        "deploy": "batch",
    }


def test_variables_of_others_are_left_alone() -> None:
    others = {"CLEARWAY_JOB": "1", "CLEARWAY_PRODUCT": "flights", "CLEARWAY_FAULT": "", "CLEARWAY_HOMES": "x"}
    assert Environment.load(others) == Environment.load({})


def test_an_environment_cannot_be_changed(env: Environment) -> None:
    with pytest.raises(ValueError, match="frozen"):
        env.name = "other"  # type: ignore[misc]


def test_the_fixture_stays_in_its_own_folder(env: Environment, tmp_path: Path) -> None:
    assert env.home.is_relative_to(tmp_path)
    assert env.store_root.startswith(tmp_path.as_uri())


def test_each_product_has_an_address_of_its_own() -> None:
    endpoint = Environment.load(
        {"CLEARWAY__ENDPOINT__URL": "http://{product}.models:8890", "CLEARWAY__ENDPOINT__URLS__RAIN": "http://here:1"}
    ).endpoint
    assert endpoint.url_of("api_docs") == "http://api_docs.models:8890"
    assert endpoint.url_of("rain") == "http://here:1"


def test_a_products_sagemaker_endpoint_is_named_after_it() -> None:
    assert Environment.load({}).sagemaker.of("api_docs").endpoint == "clearway-api-docs"
