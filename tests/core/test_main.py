"""The one entry point: finds commands by name, explains itself, and ends with a code a script can act on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clearway import __main__ as entry
from clearway import release
from clearway.contracts.errors import DataError, Unavailable
from clearway.infra.environment import Environment
from clearway.infra.jobs.processes import environment_variables
from clearway.launch.commands import stage

INPUTS = json.dumps({"product": "flights", "release_id": "r", "start": "2012-12-31", "end": "2013-04-01"})


@pytest.fixture
def at_home(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment_variables(env).items():
        monkeypatch.setenv(name, value)


def raising(error: Exception) -> object:
    def run(*_: object, **__: object) -> None:
        raise error

    return run


def test_every_verb_of_the_loop_has_a_command() -> None:
    assert set(entry.VERBS) == set(release.VERBS)


def test_help_lists_every_command_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "ingest, preprocess, validate" in text
    assert "  run " in text
    assert "  stage " not in text


def test_an_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["fly"]) == entry.EXIT_REFUSED
    assert "command 'fly' is unknown; allowed: ingest" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"product": 5}'])
def test_inputs_that_do_not_fit_are_refused_in_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["ingest", "--inputs", text]) == entry.EXIT_REFUSED
    assert capsys.readouterr().err.startswith("ConfigError: inputs of ingest are not usable")


@pytest.mark.parametrize("command", ["up", "run", "release", "replay", "drill", "rollback", "callers", "status"])
@pytest.mark.usefixtures("at_home")
def test_a_product_that_is_not_there_starts_nothing(
    command: str, env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main([command, "--product", "flight"]) == entry.EXIT_REFUSED
    assert "product 'flight' is not in" in capsys.readouterr().err
    assert not (env.home / "run").exists()


def test_a_file_of_inputs_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["ingest", "--inputs-file", str(tmp_path / "none.json")]) == entry.EXIT_REFUSED
    assert "none.json does not exist; name a file" in capsys.readouterr().err


@pytest.mark.usefixtures("at_home")
def test_a_home_that_cannot_be_written_is_told_in_one_line(
    env: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    env.home.parent.mkdir(parents=True, exist_ok=True)
    env.home.write_text("a file where the home should be")
    assert entry.main(["ingest", "--inputs", INPUTS]) == entry.EXIT_FAILED
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("NotADirectoryError: [Errno 20]")
    assert str(env.home) in told


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize(
    ("error", "code"), [(DataError("bad bytes"), entry.EXIT_REFUSED), (Unavailable("silent"), entry.EXIT_FAILED)]
)
def test_a_stages_refusal_is_written_down_for_whoever_waits(
    error: Exception, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "run_in_place", raising(error))
    assert entry.main(["ingest", "--inputs", INPUTS, "--outputs", str(tmp_path / "out.json")]) == code
    written = json.loads((tmp_path / "error.json").read_text())
    assert written == {"error": type(error).__name__, "text": str(error)}
    assert not (tmp_path / "out.json").exists()


@pytest.mark.usefixtures("at_home")
def test_a_bug_is_not_dressed_up_as_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "run_in_place", raising(RuntimeError("bug")))
    with pytest.raises(RuntimeError):
        entry.main(["ingest", "--inputs", INPUTS, "--outputs", str(tmp_path / "out.json")])
    assert list(tmp_path.glob("*.json")) == []


def test_help_is_quick_because_commands_are_imported_by_name() -> None:
    code = "import sys; from clearway.__main__ import main; main(['stop', '--help'])"
    script = (
        f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, 'airflow' in sys.modules)); {code}"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False False"
