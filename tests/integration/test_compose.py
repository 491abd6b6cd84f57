"""docker-compose.yaml and Dockerfile, as far as a machine without a Docker engine can check them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from clearway.infra.environment import Environment, project_root
from clearway.serve.__main__ import main
from clearway.serve.sagemaker import main as serve_on_sagemaker

ROOT = project_root()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
AIRFLOW = ("airflow-init", "api-server", "scheduler", "dag-processor", "triggerer")
ONE_SHOT = {"airflow-init"}
SECRETS = {"POSTGRES_PASSWORD", "AIRFLOW_FERNET_KEY", "AIRFLOW_API_SECRET_KEY", "AIRFLOW_JWT_SECRET"}
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?P<rest>[^}]*)\}")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def resolved(text: str) -> str:
    """Defaults filled in, secrets replaced by a stand-in, as compose does."""
    return VARIABLE.sub(lambda m: m["rest"].removeprefix(":-") if m["rest"].startswith(":-") else "x" * 64, text)


def command(service: str) -> list[str]:
    found = SERVICES[service].get("command", [])
    return [resolved(word) for word in (shlex.split(found) if isinstance(found, str) else found)]


def environment(service: str) -> dict[str, str]:
    return {name: resolved(str(value)) for name, value in SERVICES[service].get("environment", {}).items()}


def test_the_services_of_the_stack_are_all_there() -> None:
    assert set(SERVICES) == {*AIRFLOW, "postgres", "mlflow", "endpoint"}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_service_is_checked_for_health(service: str) -> None:
    check = SERVICES[service]["healthcheck"]
    if service in ONE_SHOT:
        assert check == {"disable": True}
        assert SERVICES[service]["restart"] == "no"
        return
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)
    assert SERVICES[service]["restart"] == "unless-stopped"


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_ports_are_published_on_loopback_only(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", resolved(port))


def test_nothing_is_reachable_from_outside_but_three_pages() -> None:
    assert {name for name, service in SERVICES.items() if service.get("ports")} == {"api-server", "mlflow", "endpoint"}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_no_service_runs_as_root_or_gains_rights(service: str) -> None:
    definition = SERVICES[service]
    assert "no-new-privileges:true" in definition["security_opt"]
    assert "privileged" not in definition
    if "build" in definition:
        assert definition["cap_drop"] == ["ALL"]
        assert "user" not in definition, "the image's own user"
    else:
        assert definition["user"] not in {"root", "0"}


def test_volumes_are_declared_and_files_exist() -> None:
    used = set()
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                assert volume.endswith(":ro"), f"{volume}: the project is not written to"
            else:
                used.add(source)
    assert used == set(COMPOSE["volumes"])


def test_dependencies_name_services_and_states_they_can_reach() -> None:
    for service in SERVICES.values():
        for name, state in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if name in ONE_SHOT else "service_healthy"
            assert state == {"condition": expected}
            assert name in SERVICES


def test_secrets_have_no_default_and_no_value_in_the_file() -> None:
    text = (ROOT / "docker-compose.yaml").read_text(encoding="utf-8")
    found = {m["name"]: m["rest"] for m in VARIABLE.finditer(text)}
    assert {name for name, rest in found.items() if rest.startswith(":?")} == SECRETS
    assert all(rest.startswith(":-") for name, rest in found.items() if name not in SECRETS)


def test_all_parts_of_airflow_share_one_environment() -> None:
    assert all(environment(service) == environment("scheduler") for service in AIRFLOW)
    shared = environment("scheduler")
    for name in ("AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"):
        assert len(shared[name]) >= 32


def in_child(script: str, argument: object, *, home: Path) -> Any:
    """Run a script in a process of its own, since Airflow and MLflow change logging and write files when loaded."""
    words = [sys.executable, "-W", "ignore", "-c", f"import json, sys\nargument = json.loads(sys.argv[1])\n{script}"]
    done = subprocess.run(
        [*words, json.dumps(argument)],
        env={**os.environ, "AIRFLOW_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_every_airflow_variable_is_an_option_that_airflow_knows(tmp_path: Path) -> None:
    script = "from airflow.configuration import conf; d = conf.configuration_description\n" + (
        "print(json.dumps({s: sorted(body['options']) for s, body in d.items()}))"
    )
    options: dict[str, list[str]] = in_child(script, None, home=tmp_path)
    known = {f"AIRFLOW__{s.upper()}__{option.upper()}" for s, found in options.items() for option in found}
    used = {name for service in SERVICES for name in environment(service) if name.startswith("AIRFLOW__")}
    assert used <= known, f"unknown to Airflow: {sorted(used - known)}"
    assert len(used) > 10


def test_clearway_accepts_its_variables_and_finds_its_neighbours() -> None:
    for service in ("scheduler", "endpoint"):
        env = Environment.load(environment(service))
        assert env.home == Path("/var/lib/clearway")
        assert env.approve.mode == "person"
        for url in (env.endpoint.url, env.tracking_uri, env.release_store_url):
            host = re.sub(r"^.*?://(?:[^@/]*@)?([a-z-]+):\d+.*$", r"\1", url)
            assert host in SERVICES, url
    assert "api-server" in SERVICES


def test_databases_in_use_are_made() -> None:
    text = " ".join([*environment("scheduler").values(), *command("mlflow")])
    used = set(re.findall(r"@postgres:5432/(\w+)", text))
    made = set(re.findall(r"CREATE DATABASE (\w+)", (ROOT / "docker/postgres/create-databases.sql").read_text()))
    assert used == made | {SERVICES["postgres"]["environment"]["POSTGRES_DB"]}


def test_the_pool_is_the_one_of_airflow_settings() -> None:
    settings = yaml.safe_load((ROOT / "airflow_settings.yaml").read_text(encoding="utf-8"))
    script = command("airflow-init")[-1]
    for pool in settings["airflow"]["pools"] or []:
        assert f'airflow pools set {pool["pool_name"]} {pool["pool_slot"]} "{pool["pool_description"]}"' in script


def airflow_commands() -> list[list[str]]:
    lines = [shlex.split(line) for line in command("airflow-init")[-1].splitlines()]
    running = [command(service) for service in AIRFLOW if service not in ONE_SHOT]
    checks = [SERVICES[s]["healthcheck"]["test"][1:] for s in ("dag-processor", "triggerer")]
    return [*lines, *running, *checks]


@pytest.mark.slow
def test_airflow_understands_every_command(tmp_path: Path) -> None:
    script = "from airflow.cli.cli_parser import get_parser; parser = get_parser(dag_parser=False)\n" + (
        "print(json.dumps([parser.parse_args(words).subcommand for words in argument]))"
    )
    words = airflow_commands()
    assert all(w[0] == "airflow" for w in words)
    understood = in_child(script, [w[1:] for w in words], home=tmp_path)
    assert all(name in w[1:3] for name, w in zip(understood, words, strict=True))


@pytest.mark.slow
def test_mlflow_understands_its_command(tmp_path: Path) -> None:
    script = "from mlflow.cli import cli; context = cli.commands['server'].make_context('server', argument)\n" + (
        "print(json.dumps({k: v for k, v in context.params.items() if isinstance(v, (str, int))}))"
    )
    words = command("mlflow")
    assert words[:2] == ["mlflow", "server"]
    params = in_child(script, words[2:], home=tmp_path)
    assert (params["host"], params["port"], params["workers"]) == ("0.0.0.0", 5000, "1")  # noqa: S104 - inside its container
    assert params["backend_store_uri"].endswith("@postgres:5432/mlflow")


def test_the_model_server_understands_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = command("endpoint")
    assert words[:3] == ["python", "-m", "clearway.serve"]
    with pytest.raises(SystemExit) as left:
        main([*words[3:], "--help"])
    assert left.value.code == 0
    assert "--product" in capsys.readouterr().out


def test_the_image_runs_as_a_user_of_its_own() -> None:
    stages = re.findall(r"^FROM .* AS (\w+)$", DOCKERFILE, re.MULTILINE)
    assert len(stages) >= 2, "packages are built in a stage of their own"
    last = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    users = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert users
    assert users[-1].split(":")[0] not in {"root", "0"}
    assert re.search(r"^HEALTHCHECK ", last, re.MULTILINE)
    assert "--require-hashes" in DOCKERFILE


def test_there_is_an_image_for_each_place_on_aws(capsys: pytest.CaptureFixture[str]) -> None:
    parts = {
        part.split(" AS ")[1].splitlines()[0]: part for part in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[2:]
    }
    assert list(parts) == ["project", "training", "serving", "runtime"]
    assert all(parts[target].startswith("project ") for target in ("training", "serving", "runtime"))
    assert "ENTRYPOINT" not in parts["training"], "jobs bring their own command"
    entrypoint = json.loads(re.findall(r"^ENTRYPOINT (.*)$", parts["serving"], re.MULTILINE)[0])
    assert entrypoint == ["python", "-m", "clearway.serve.sagemaker"]
    with pytest.raises(SystemExit) as left:
        serve_on_sagemaker(["serve", "--help"])
    assert left.value.code == 0
    assert "8080" in parts["serving"]
    assert "--port" in capsys.readouterr().out


def test_everything_the_image_copies_exists_and_reaches_the_build() -> None:
    ignored = set((ROOT / ".dockerignore").read_text(encoding="utf-8").split())
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in [w for w in line.split() if not w.startswith("--")][:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        kept = (f"!{path}" for path in (Path(source), *Path(source).parents))
        assert not ignored.isdisjoint(kept), f".dockerignore keeps {source} out"


def test_secrets_and_state_stay_out_of_image_and_repository() -> None:
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")[1] == "*"
    assert ".env" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def test_health_checks_ask_for_pages_that_exist() -> None:
    for service in ("api-server", "scheduler", "mlflow", "endpoint"):
        check = SERVICES[service]["healthcheck"]["test"]
        assert check[1:3] == ["python", "-c"]
        compile(check[3], service, "exec")
    assert "/healthz" in SERVICES["endpoint"]["healthcheck"]["test"][3]
    assert ":8890/healthz" in DOCKERFILE
    assert "8890" in command("endpoint")


def test_docker_compose_reads_the_file() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker client with the compose plugin")
    variables = {**os.environ, **dict.fromkeys(SECRETS, "x" * 64)}
    done = subprocess.run(
        [docker, "compose", "config", "--quiet"], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
