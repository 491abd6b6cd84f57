"""A training on several machines that share no folder: as SageMaker and Batch start one."""

import json
import socket
import threading
from pathlib import Path

import pytest

from clearway.contracts.errors import ClearwayError, ConfigError, JobFailed
from clearway.infra.environment import Environment, Training
from clearway.packaging.signing import KEY_BYTES, install
from clearway.product import LoadedProduct
from clearway.train import launch, machines, produce
from clearway.train.machines import Ended, Place, first_of, follow, interface_of, lead, place_of
from clearway.train.run import run
from clearway.train.worker import Job
from machines_kit import train_on
from serving_kit import free_port
from training_kit import World, make_world

# MLflow 3.17 on SQLAlchemy 2.1; nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
NAMES = ("127.0.0.1", "127.0.0.2")
EVERY_STEP = {"checkpoint_s": 1e-9}


@pytest.fixture
def world(env: Environment, flights: LoadedProduct) -> World:
    return make_world(env, flights)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, flights: LoadedProduct) -> str:
    """Digest of the package of two processes on one machine."""
    home = tmp_path_factory.mktemp("alone")
    world = make_world(Environment.load({"CLEARWAY__HOME": str(home)}), flights)
    install(b"k" * KEY_BYTES, key_folder=home / "keys")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(produce, "num_local_processes", lambda: 2)
        return run(world.inputs(), product=world.product, env=world.env).model.digest


def checkpoints(home: Path) -> list[str]:
    return sorted(path.name for path in home.rglob("step-*.ckpt"))


@pytest.mark.slow
def test_two_machines_make_the_package_of_two_processes_on_one(world: World, tmp_path, alone):
    (first, other), log = train_on(world, tmp_path, count=2)
    assert (first.error, other.error, other.outputs) == ("", "", None), log
    assert first.outputs["model"]["digest"] == alone
    assert checkpoints(other.home) == []  # the first one keeps them, for all
    again, log = train_on(world, tmp_path, count=2)
    assert [machine.error for machine in again] == ["", ""]
    assert again[0].outputs == first.outputs
    assert "nothing to do for 127.0.0.2" in log


@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_process_that_dies_on_one_machine_starts_all_again(world: World, tmp_path, alone, number):
    fault = {number: {"CLEARWAY_FAULT": "engine.step=kill@20"}}  # the one after it has fewer steps left
    (first, other), log = train_on(world, tmp_path, count=2, variables=fault, params=EVERY_STEP)
    assert (first.error, other.error) == ("", ""), log
    assert f"machine {NAMES[number]} failed first: exit code -9" in log
    assert "resumed at step" in log
    assert first.outputs["model"]["digest"] == alone


@pytest.mark.slow
@pytest.mark.long
def test_the_reason_of_the_machine_that_failed_first_is_told(world: World, tmp_path):
    fault = {1: {"CLEARWAY_FAULT": "engine.step=raise@2"}}
    (first, other), log = train_on(world, tmp_path, count=2, variables=fault, max_restarts=0)
    assert "machine 127.0.0.2 failed first: exit code 1: InjectedFault: fault point engine.step" in first.error, log
    assert "machine 127.0.0.1 ended the training" in other.error
    assert "InjectedFault" in other.error


@pytest.mark.slow
@pytest.mark.parametrize("number", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_machine_that_is_lost_ends_the_others_and_the_next_attempt_goes_on(world: World, tmp_path, alone, number):
    where = {"machine": number, "below": str(world.env.home), "file": "step-00000001*.ckpt"}
    hang = {1 - number: {"CLEARWAY_FAULT": "engine.step=sleep:0.2@15"}}
    ended, log = train_on(world, tmp_path, count=2, lose=where, variables=hang, params=EVERY_STEP)
    assert [one.is_lost for one in ended] == [number == 0, number == 1], log
    assert f"machine {NAMES[number]}" in ended[1 - number].error
    (first, other), log = train_on(world, tmp_path, count=2, params=EVERY_STEP)
    assert (first.error, other.error) == ("", ""), log
    assert "resumed at step" in log
    assert first.outputs["model"]["digest"] == alone


@pytest.mark.slow
@pytest.mark.long
def test_one_machine_that_is_asked_to_stop_stops_all_with_a_checkpoint(world: World, tmp_path, alone):
    (tmp_path / "stop").touch()
    ended, log = train_on(world, tmp_path, count=2, own={1: {"stop_file": str(tmp_path / "stop")}})
    assert "asked to stop (another rank was asked); a checkpoint is written" in ended[0].error, log
    assert ended[1].error.startswith("JobFailed: machine 127.0.0.1 ended the training")
    (first, _), log = train_on(world, tmp_path, count=2)
    assert "resumed at step" in log
    assert first.outputs["model"]["digest"] == alone


def test_machines_that_do_not_come_are_named_in_time(monkeypatch):
    monkeypatch.setattr(machines, "LINGER_S", 0.1)
    place = Place(index=0, names=("algo-1", "algo-2", "algo-3"))
    with (
        pytest.raises(JobFailed, match=r"2 of 3 machines did not come within 0\.2 s, of algo-2, algo-3"),
        lead(place, Training(port=free_port(), join_timeout_s=0.2)) as first,
    ):
        first.gather("job")


def test_a_first_machine_that_does_not_come_is_named_in_time():
    place = Place(index=1, names=("127.0.0.1", "127.0.0.2"))
    asked = Training(port=free_port(), join_timeout_s=0.2)
    with pytest.raises(JobFailed, match=r"machine 127\.0\.0\.1 was not reached at port"):
        follow(place, asked, prepare=lambda: "job", run=lambda _: None)


@pytest.mark.parametrize("is_ready", [True, False], ids=["trains something else", "cannot begin"])
def test_the_machines_hear_from_each_other_why_it_does_not_begin(is_ready):
    names, asked = ("127.0.0.1", "127.0.0.2"), Training(port=free_port())
    raised = list[BaseException]()

    def prepare() -> str:
        if is_ready:
            return "another job"
        raise ConfigError("no such column")

    def other() -> None:
        try:
            follow(Place(index=1, names=names), asked, prepare=prepare, run=lambda _: None)
        except ClearwayError as error:
            raised.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    wanted = "127.0.0.2 would train job another job, 127.0.0.1 trains job: other code"
    if not is_ready:
        wanted = "machine 127.0.0.2 failed before the training began: ConfigError: no such column"
    with pytest.raises(JobFailed, match=wanted), lead(Place(index=0, names=names), asked) as first:
        first.gather("job")
    thread.join(60)
    (error,) = raised
    assert str(error).startswith("machine 127.0.0.1 ended the training" if is_ready else "no such column")
    assert is_ready is ("127.0.0.2 would train" in str(error))


def test_a_first_machine_that_fails_at_once_tells_those_that_call_later():
    names, asked = ("127.0.0.1", "127.0.0.2"), Training(port=free_port())
    raised = list[BaseException]()

    def other() -> None:
        try:
            follow(Place(index=1, names=names), asked, prepare=lambda: "job", run=lambda _: None)
        except JobFailed as error:
            raised.append(error)

    thread = threading.Thread(target=other)
    with pytest.raises(ConfigError, match="no such column"), lead(Place(index=0, names=names), asked):
        thread.start()
        raise ConfigError("no such column")
    thread.join(60)
    assert [str(error) for error in raised] == ["machine 127.0.0.1 ended the training: ConfigError: no such column"]


def test_who_is_none_of_ours_is_not_listened_to():
    place, asked = Place(index=0, names=("127.0.0.1", "127.0.0.2")), Training(port=free_port())
    with (
        pytest.raises(JobFailed, match=r"says b'GET / HTTP/1.1\\r', so it is none of ours"),
        lead(place, asked) as first,
        socket.create_connection(("127.0.0.1", asked.port), timeout=60) as stranger,
    ):
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        first.gather("job")


def test_agents_that_do_not_meet_are_a_reason_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "MEET_S", 1.0)
    job = Job(
        folder=str(tmp_path),
        identity="j",
        kind="tabular",
        sizes={},
        settings={},
        num_threads=1,
        is_bfloat16=False,
        collective_timeout_s=1.0,
    )
    nobody = machines.Meeting(address="127.0.0.1", port=free_port())
    with pytest.raises(machines.Died, match="Dist") as raised:
        launch.assist(job, nobody, index=1, count=2, num_processes=1, can_fork=False)
    assert first_of({"a": Ended(reason=str(raised.value), at_s=1.0), "b": Ended(reason="KeyError", at_s=2.0)}) == "b"


@pytest.mark.parametrize(
    ("failed", "wanted"),
    [
        ({"a": Ended(reason="KeyError", at_s=2.0), "b": Ended(reason="ValueError", at_s=1.0)}, "b"),
        ({"a": Ended(reason="RuntimeError: [gloo/pair.cc] x", at_s=1.0), "b": Ended(reason="KeyError", at_s=2.0)}, "b"),
        ({"a": Ended(reason="DistNetworkError", at_s=1.0), "b": Ended(reason="exit code -9", at_s=2.0)}, "b"),
        ({"a": Ended(reason="Connection closed by peer", at_s=1.0), "b": Ended(reason="machine b is gone")}, "b"),
    ],
    ids=["earlier", "not hearsay", "killed", "gone"],
)
def test_who_failed_first(failed, wanted):
    assert first_of(failed) == wanted


def test_where_a_machine_stands_is_read_as_sagemaker_writes_it(tmp_path):
    def asked(**content: object) -> Training:
        (tmp_path / "hosts.json").write_text(json.dumps(content))
        return Training(hosts=str(tmp_path / "hosts.json"))

    hosts = [f"algo-{number}" for number in (3, 2, 1)]
    place = place_of(asked(current_host="algo-2", hosts=hosts, network_interface_name="eth0"))
    assert (place.index, place.first, place.is_first) == (1, "algo-1", False)
    assert place_of(asked(current_host="algo-1", hosts=["algo-1"])) is None
    assert place_of(Training()) is None
    with pytest.raises(ConfigError, match="does not say who the machines of this training are"):
        place_of(asked(current_host="algo-4", hosts=hosts))
    with pytest.raises(ConfigError, match="No such file"):
        place_of(Training(hosts=str(tmp_path / "absent.json")))


def test_where_a_node_stands_is_read_as_batch_says_it():
    def said(index: int, **more: str) -> dict[str, str]:
        names = {"NUM_NODES": "3", "MAIN_NODE_INDEX": "1", "NODE_INDEX": str(index), **more}
        return {f"AWS_BATCH_JOB_{name}": value for name, value in names.items()}

    asked, main = Training(hosts="batch"), {"MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.42.0.7"}
    first, other = place_of(asked, said(1)), place_of(asked, said(2, **main))
    assert (first.is_first, first.name, first.address) == (True, "node 1", "")
    assert (other.index, other.name, other.first, other.address) == (2, "node 2", "node 1", "10.42.0.7")
    assert place_of(asked, said(1, NUM_NODES="1", MAIN_NODE_INDEX="0", NODE_INDEX="0")) is None
    for absent in ({}, said(2)):
        with pytest.raises(ConfigError, match="order it as a multi-node parallel job"):
            place_of(asked, absent)


def test_machines_are_named_once():
    with pytest.raises(ValueError, match="leave max_nodes"):
        Training(hosts="/opt/ml/input/config/resourceconfig.json", max_nodes=2)


def test_processes_talk_by_the_network_of_the_machines():
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.1") == ""
