"""`aws up`, `down` and `doctor` against an account as tests/moto_server.py and tests/moto_stacks.py model it."""

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml

from aws_kit import at_endpoint
from clearway.__main__ import main
from clearway.contracts.errors import ConfigError
from clearway.contracts.release_document import ReleaseDocument
from clearway.infra.aws import doctor, stacks
from clearway.infra.aws.client import client
from clearway.infra.aws.installation import Installation, check_region
from clearway.infra.aws.secrets import binary_secret
from clearway.infra.aws.stacks import Stacks
from clearway.infra.clock import FakeClock
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.infra.storage import join, open_storage
from iam_kit import ACCOUNT

pytestmark = pytest.mark.slow
PARTS = ("storage", "state", "images")  # of an installation that a test makes for itself
CLOCK = FakeClock(1.7e9)


@contextlib.contextmanager
def answering(status: int, body: str = "") -> Iterator[str]:
    """A server that says the same to everybody; its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

    for verb in ("GET", "POST"):
        setattr(Handler, f"do_{verb}", Handler._answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def fresh(installed: dict[str, str]) -> Iterator[Installation]:
    """An installation of its own, of the parts that hold something, which is removed again."""
    installation = Installation("parcels", clock=CLOCK, order=PARTS)
    yield installation
    installation.down(with_data=True)


def test_up_ends_with_settings_that_are_settings(installed):
    env = Environment.load(installed)
    assert env.store_root == "s3://clearway-123456789012-us-east-1/store"
    assert env.release_store_url == "dynamodb://clearway-releases"
    own = {"tune": "clearway-tune", "deploy": "clearway-deploy", "serve": "clearway-deploy"}
    assert env.aws.batch_definitions == own
    assert (env.aws.batch_share, env.aws.tags["team"]) == ("ops", "ops")
    nodes = (env.aws.batch_nodes_queue, env.aws.batch_nodes_definition, env.aws.batch_nodes_machine)
    assert nodes == ("clearway-nodes", "clearway-nodes", "m7i.2xlarge")
    assert len(binary_secret(env.aws.signing_secret)) == 32


def test_what_was_made_is_used_by_the_rooms_that_need_it(installed):
    env = Environment.load(installed)
    storage, store = open_storage(env.store_root), open_release_store(env)
    address = join(env.store_root, "rain", "ledger", "1.json")
    assert storage.create(address, b"{}")
    assert not storage.create(address, b"{}")
    assert store.swap(ReleaseDocument(product="rain"), expected_version=0) == 1
    storage.delete_tree(join(env.store_root, "rain"))


def test_up_again_changes_nothing_and_keeps_the_key(fresh):
    first = fresh.up({}, tags={})
    key = binary_secret(first["CLEARWAY__AWS__SIGNING_SECRET"])
    assert fresh.up({}, tags={}) == first
    assert binary_secret(first["CLEARWAY__AWS__SIGNING_SECRET"]) == key


def test_parameters_and_tags_stay_until_others_are_given(fresh):
    image = "CLEARWAY__AWS__TRAINING_IMAGE"
    assert fresh.up({"ImageTag": "7"}, tags={"team": "ml"})[image].endswith("parcels/jobs:7")
    again = fresh.up({}, tags={})
    assert (again[image][-2:], again["CLEARWAY__AWS__TAGS__TEAM"]) == (":7", "ml")
    assert fresh.up({"ImageTag": "8"}, tags={})[image].endswith(":8")


def test_an_unknown_parameter_is_refused_before_anything_is_made(installed):
    with pytest.raises(ConfigError, match=r"\['Colour'\] are in no template.*ImageTag"):
        Installation("parcels", clock=CLOCK).up({"Colour": "red"}, tags={})
    assert Stacks("parcels", clock=CLOCK).look("network") is None


def test_down_refuses_while_data_would_go_and_removes_all_when_told(fresh):
    env = Environment.load(fresh.up({}, tags={}))
    open_storage(env.store_root).write(join(env.store_root, "rain", "batches", "1"), b"rows")
    open_release_store(env).swap(ReleaseDocument(product="rain"), expected_version=0)
    with pytest.raises(
        ConfigError,
        match=r"holds objects .*store/rain/batches/1 among them and table .* holds release documents.*--with-data",
    ):
        fresh.down(with_data=False)
    assert open_storage(env.store_root).read(join(env.store_root, "rain", "batches", "1")) == b"rows"
    assert fresh.down(with_data=True) == list(reversed(PARTS))
    names = [bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"]]
    assert not [name for name in names if name.startswith("parcels")]
    assert fresh.down(with_data=False) == []


def test_down_without_data_needs_no_permission(fresh):
    fresh.up({}, tags={})
    assert fresh.down(with_data=False) == list(reversed(PARTS))


def test_what_was_deleted_is_data_until_its_versions_are_gone(fresh):
    env = Environment.load(fresh.up({}, tags={}))
    open_storage(env.store_root).write(join(env.store_root, "a"), b"a")
    open_storage(env.store_root).delete_tree(env.store_root)
    with pytest.raises(ConfigError, match="store/a among them"):
        fresh.down(with_data=False)


def test_another_template_is_one_more_name(installed, tmp_path, monkeypatch):
    """What it asks for comes from the stacks before it, and its outputs become settings."""
    text = {
        "Parameters": {"Name": {"Type": "String"}, "Bucket": {"Type": "String"}},
        "Resources": {
            "Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": {"Fn::Sub": "${Name}-${Bucket}"}}}
        },
        "Outputs": {
            "Topic": {"Description": "CLEARWAY__AWS__LOG_GROUP", "Value": {"Fn::GetAtt": ["Topic", "TopicName"]}}
        },
    }
    (tmp_path / "storage.yaml").write_text((stacks.folder() / "storage.yaml").read_text())
    (tmp_path / "clearway_job.py").write_text("")
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(text))
    monkeypatch.setattr(stacks, "folder", lambda: tmp_path)
    made = Stacks("parcels", clock=CLOCK, order=("storage", "more"))
    found = dict(made.up({}, tags={}))
    assert found["more"].settings == {"CLEARWAY__AWS__LOG_GROUP": "parcels-parcels-123456789012-us-east-1"}
    assert list(made.down()) == ["more", "storage"]


def test_an_option_is_made_for_whoever_asks_and_kept_from_then_on(installed, tmp_path, monkeypatch):
    (tmp_path / "storage.yaml").write_text((stacks.folder() / "storage.yaml").read_text())
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "parcels-option"}}
    (tmp_path / "emr.yaml").write_text(yaml.safe_dump({"Resources": {"Topic": topic}}))
    monkeypatch.setattr(stacks, "folder", lambda: tmp_path)
    made = Stacks("parcels", clock=CLOCK, order=("storage", "emr"))
    assert [name for name, _ in made.up({}, tags={})] == ["storage"]
    assert [name for name, _ in made.up({}, tags={}, wanted=("emr",))] == ["storage", "emr"]
    assert [name for name, _ in made.up({}, tags={})] == ["storage", "emr"]
    assert list(made.down()) == ["emr", "storage"]


def test_a_template_that_is_refused_is_said_with_the_reason(installed, tmp_path, monkeypatch):
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"Resources": {}, "Parameters": {"Needed": {"Type": "String"}}}))
    monkeypatch.setattr(stacks, "folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match=r"more.yaml needs \['Needed'\]"):
        list(Stacks("parcels", clock=CLOCK, order=("more",)).up({}, tags={}))
    trust = {"Version": "2012-10-17", "Statement": []}
    client("iam").create_role(RoleName="taken", AssumeRolePolicyDocument=json.dumps(trust))
    clash = {"Type": "AWS::IAM::Role", "Properties": {"RoleName": "taken", "AssumeRolePolicyDocument": trust}}
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"Resources": {"Again": clash}}))
    with pytest.raises(ConfigError, match=r"stack parcels-more is refused.*taken"):
        list(Stacks("parcels", clock=CLOCK, order=("more",)).up({}, tags={}))
    client("iam").delete_role(RoleName="taken")
    client("cloudformation").delete_stack(StackName="parcels-more")


KEYED: dict[str, Any] = {
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}


def test_a_stack_that_was_never_finished_begins_again(fresh):
    body = (stacks.folder() / "storage.yaml").read_text()
    client("cloudformation").create_change_set(
        StackName="parcels-storage", ChangeSetName="mine", ChangeSetType="CREATE", TemplateBody=body
    )
    assert Stacks("parcels", clock=CLOCK).look("storage").status == "REVIEW_IN_PROGRESS"
    assert fresh.up({}, tags={})["CLEARWAY__STORAGE__ROOT"].startswith("s3://parcels-")


def test_a_region_that_is_none_is_said(installed, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-nowhere-1")
    with pytest.raises(ConfigError, match=r"'eu-nowhere-1' is not one of AWS.*eu-central-1"):
        check_region()


def test_a_profile_that_is_none_is_said(installed, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match=r"nobody.*AWS_PROFILE"):
        check_region()


def test_credentials_that_aws_does_not_know_are_said(monkeypatch):
    body = "<ErrorResponse><Error><Code>InvalidClientTokenId</Code><Message>no</Message></Error></ErrorResponse>"
    with answering(403, body) as address:
        for _ in at_endpoint(address, monkeypatch):
            with pytest.raises(ConfigError, match=r"does not know these credentials.*AWS_PROFILE"):
                check_region()


def test_a_name_that_no_bucket_takes_is_refused(installed, capsys):
    assert main(["aws", "up", "--name", "My_Parcels"]) == 2
    assert "3 to 20 small letters" in capsys.readouterr().err


def test_the_command_prints_what_a_shell_takes_and_one_document_for_scripts(installed, capsys):
    assert main(["aws", "up"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "export CLEARWAY_ENV=aws" in lines
    assert all(line.startswith("export CLEARWAY") for line in lines)
    assert main(["aws", "up", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings == installed
    assert f"export CLEARWAY__AWS__SUBNETS='{settings['CLEARWAY__AWS__SUBNETS']}'" in lines


# --- doctor


@pytest.fixture(scope="module")
def healthy(installed) -> Iterator[Environment]:
    """An account with all that docs/aws.md asks for."""
    with answering(200) as server:
        env = Environment.load({**installed, "CLEARWAY__TRACKING__URI": server, "CLEARWAY__ENDPOINT__URL": server})
        manifest = json.dumps({"schemaVersion": 2, "config": {"digest": "sha256:1"}, "layers": []})
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        image = {"imageManifest": manifest, "imageManifestMediaType": kind, "imageTag": "1"}
        client("ecr").put_image(repositoryName="clearway/jobs", **image)
        client("s3").put_object(Bucket=bucket_of(env), Key="code/environment.tar.gz", Body=b"")
        provider = f"arn:aws:iam::{ACCOUNT}:oidc-provider/oidc.eks.us-east-1.amazonaws.com/id/1"
        pods = {"Effect": "Allow", "Principal": {"Federated": provider}, "Action": "sts:AssumeRoleWithWebIdentity"}
        trust = json.dumps({"Version": "2012-10-17", "Statement": [pods]})
        client("iam").create_role(RoleName=env.aws.emr_eks_role.rpartition("/")[2], AssumeRolePolicyDocument=trust)
        yield env
        client("iam").delete_role(RoleName=env.aws.emr_eks_role.rpartition("/")[2])


def bucket_of(env: Environment) -> str:
    return env.store_root.split("/")[2]


def changed(env: Environment, section: str, **values: Any) -> Environment:
    part = getattr(env, section).model_copy(update=values)
    return env.model_copy(update={section: part})


def failing(env: Environment) -> dict[str, str]:
    return {check.about: check.found for check in doctor.examine(env) if not check.is_good}


def test_an_account_with_everything_is_well(healthy):
    assert failing(healthy) == {}
    assert len(doctor.examine(healthy)) == 18


def test_a_setting_that_is_missing_is_not_well(healthy):
    found = failing(changed(healthy, "aws", emr_role="", batch_queue="", signing_secret=""))
    assert found == {"role of Spark jobs": "not set", "queue": "not set", "signing key": "not set"}


SPARK = {
    "emr_serverless": {"role of Spark jobs", "Spark application"},
    "emr_ec2": {
        "role of EMR",
        "profile of EMR's machines",
        "subnets of clusters",
        "security groups of clusters",
        "security group of EMR",
    },
    "emr_eks": {"virtual cluster", "role of pods"},
    "batch": set(),
}


def with_spark_on(env: Environment, service: str, **values: Any) -> Environment:
    return changed(env, "aws", services=env.aws.services.model_copy(update={"preprocess": service}), **values)


@pytest.mark.parametrize("service", SPARK)
def test_the_service_that_runs_spark_is_the_one_that_is_asked_about(healthy, service):
    env = with_spark_on(healthy, service)
    asked = {check.about for check in doctor.examine(env)}
    assert failing(env) == {}
    code = {"code of Spark jobs"} if service != "batch" else set()
    assert asked & {"code of Spark jobs"}.union(*SPARK.values()) == SPARK[service] | code


def test_nodes_are_asked_about_where_a_training_has_several_machines(healthy):
    train = healthy.aws.services.model_copy(update={"train": "batch"})
    env = changed(healthy, "aws", services=train, training_count=2)
    assert failing(env) == {}
    named = {check.about for check in doctor.examine(env)} - {check.about for check in doctor.examine(healthy)}
    assert named == {"queue of nodes", "job definition clearway-nodes"}
    one = changed(env, "aws", batch_nodes_definition="clearway-stage")
    assert failing(one) == {"job definition clearway-stage": "1 ACTIVE of type container"}


def without_versions(env: Environment) -> Environment:
    client("s3").put_bucket_versioning(Bucket=bucket_of(env), VersioningConfiguration={"Status": "Suspended"})
    return env


def without_encryption(env: Environment) -> Environment:
    client("s3").delete_bucket_encryption(Bucket=bucket_of(env))
    return env


def without_privacy(env: Environment) -> Environment:
    client("s3").delete_public_access_block(Bucket=bucket_of(env))
    return env


def with_half_the_privacy(env: Environment) -> Environment:
    client("s3").put_public_access_block(
        Bucket=bucket_of(env), PublicAccessBlockConfiguration={"BlockPublicAcls": True, "IgnorePublicAcls": True}
    )
    return env


def with_another_table(env: Environment) -> Environment:
    client("dynamodb").create_table(TableName=f"other-{secrets.token_hex(4)}", **KEYED)
    name = client("dynamodb").list_tables()["TableNames"]
    return changed(env, "release_store", url=f"dynamodb://{next(n for n in name if n.startswith('other-'))}")


def with_a_short_key(env: Environment) -> Environment:
    name = f"short-{secrets.token_hex(4)}"
    client("secretsmanager").create_secret(Name=name, SecretBinary=bytes(16))
    return changed(env, "aws", signing_secret=name)


def with_a_key_as_text(env: Environment) -> Environment:
    name = f"text-{secrets.token_hex(4)}"
    client("secretsmanager").create_secret(Name=name, SecretString="x" * 32)
    return changed(env, "aws", signing_secret=name)


def with_a_role_of_others(setting: str) -> Callable[[Environment], Environment]:
    def change(env: Environment) -> Environment:
        name, trust = (
            f"other-{secrets.token_hex(4)}",
            {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}},
        )
        document = json.dumps({"Version": "2012-10-17", "Statement": [{**trust, "Action": "sts:AssumeRole"}]})
        role = client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
        return changed(env, "aws", **{setting: role})

    return change


def without_environment(env: Environment) -> Environment:
    client("s3").delete_object(Bucket=bucket_of(env), Key="code/environment.tar.gz")
    return env


def with_a_closed_queue(env: Environment) -> Environment:
    client("batch").update_job_queue(jobQueue=env.aws.batch_queue, state="DISABLED")
    return env


CLOSED = "http://127.0.0.1:9"
BROKEN: dict[str, tuple[str, Callable[[Environment], Environment]]] = {
    "no bucket": ("bucket", lambda e: changed(e, "storage", root="s3://nobody-has-this/store")),
    "versions off": ("versions", without_versions),
    "not encrypted": ("encryption", without_encryption),
    "not private": ("public access", without_privacy),
    "half private": ("public access", with_half_the_privacy),
    "no table": ("table", lambda e: changed(e, "release_store", url="dynamodb://nothing")),
    "another key": ("table", with_another_table),
    "a short key": ("signing key", with_a_short_key),
    "a text": ("signing key", with_a_key_as_text),
    "no image": ("training image", lambda e: changed(e, "aws", training_image=e.aws.training_image + "9")),
    "an image of Docker Hub": ("training image", lambda e: changed(e, "aws", training_image="clearway:1")),
    "training role": ("role of trainings", with_a_role_of_others("training_role")),
    "no such role": ("role of trainings", lambda e: changed(e, "aws", training_role="arn:aws:iam::1:role/nobody")),
    "Spark role": ("role of Spark jobs", with_a_role_of_others("emr_role")),
    "no application": ("Spark application", lambda e: changed(e, "aws", emr_application="00nobody")),
    "no environment": ("code of Spark jobs", without_environment),
    "EMR's own role": (
        "role of EMR",
        lambda e: with_a_role_of_others("emr_service_role")(with_spark_on(e, "emr_ec2")),
    ),
    "no profile": (
        "profile of EMR's machines",
        lambda e: with_spark_on(e, "emr_ec2", emr_profile="nobody"),
    ),
    "no subnet": ("subnets of clusters", lambda e: with_spark_on(e, "emr_ec2", subnets="subnet-0")),
    "no groups": ("security groups of clusters", lambda e: with_spark_on(e, "emr_ec2", security_groups="sg-0")),
    "no group of EMR": ("security group of EMR", lambda e: with_spark_on(e, "emr_ec2", emr_access_group="")),
    "no virtual cluster": ("virtual cluster", lambda e: with_spark_on(e, "emr_eks", emr_virtual_cluster="nobody")),
    "role of pods": (
        "role of pods",
        lambda e: with_a_role_of_others("emr_eks_role")(with_spark_on(e, "emr_eks")),
    ),
    "closed queue": ("queue", with_a_closed_queue),
    "no share": ("queue", lambda e: changed(e, "aws", batch_share="")),
    "no queue": ("queue", lambda e: changed(e, "aws", batch_queue="nobody")),
    "no definition": (
        "job definition nobody",
        lambda e: changed(e, "aws", batch_definitions={"deploy": "nobody"}),
    ),
    "no MLflow": ("MLflow", lambda e: changed(e, "tracking", uri=CLOSED)),
    "no model server": ("model server", lambda e: changed(e, "endpoint", url=CLOSED)),
    "no serving image": ("serving image", lambda e: changed(e, "endpoint", kind="sagemaker")),
}


@pytest.fixture
def repaired(healthy):
    """Put the shared account right again after a test has broken it."""
    yield
    bucket = bucket_of(healthy)
    s3 = client("s3")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(doctor._BLOCKS, True))
    s3.put_object(Bucket=bucket, Key="code/environment.tar.gz", Body=b"")
    client("batch").update_job_queue(jobQueue=healthy.aws.batch_queue, state="ENABLED")


@pytest.mark.parametrize("fault", BROKEN)
def test_a_thing_that_is_broken_is_the_one_that_fails(healthy, repaired, fault):
    about, breaks = BROKEN[fault]
    found = failing(breaks(healthy))
    if fault == "no bucket":  # of which everything else about it is unknown as well
        assert set(found) == {"bucket", "versions", "encryption", "public access"}
        return
    assert set(found) == {about}


def test_the_command_ends_with_1_and_says_what_to_do(healthy, monkeypatch, capsys, installed):
    settings = {
        **installed,
        "CLEARWAY__TRACKING__URI": healthy.tracking.uri,
        "CLEARWAY__ENDPOINT__URL": healthy.endpoint.url,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert main(["aws", "doctor"]) == 0
    assert "FAIL" not in capsys.readouterr().out
    monkeypatch.setenv("CLEARWAY__AWS__EMR_APPLICATION", "00nobody")
    assert main(["aws", "doctor"]) == 1
    text = capsys.readouterr().out
    assert "FAIL Spark application" in text
    assert "next: run `aws up`, or correct CLEARWAY__AWS__EMR_APPLICATION" in text
