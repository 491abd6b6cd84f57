"""Loaded versions and the traffic table: fenced, durable, restored offline, never replaced by guesswork."""

import shutil

import pytest

from clearway.contracts.errors import ConfigError, IntegrityError, StaleWriter
from clearway.infra.endpoint import DeadMan, Mirror
from clearway.infra.storage import to_path
from clearway.packaging.package import FILES, MANIFEST, SIGNATURE
from clearway.serve.local_copy import LocalCopy, SavedState, ensure_token, is_token
from clearway.serve.traffic import Traffic
from clearway.serve.versions import Versions, _stable_of
from serving_kit import PRODUCT, ROW, expected_score, make_package


@pytest.fixture
def folder(env):
    return env.home / "serving" / PRODUCT


@pytest.fixture
def open_versions(env, folder):
    def opened():
        versions = Versions(LocalCopy(folder, key_folder=env.home / "keys"))
        versions.restore()
        return versions

    return opened


def test_a_loaded_version_answers_as_its_graph_says(env, open_versions):
    versions, ref = open_versions(), make_package(env, 0.3)
    versions.load(ref.uri, ref.digest, epoch=1)
    assert versions.serving.loaded[ref.digest].score([ROW]) == [pytest.approx(expected_score(0.3, ROW), abs=1e-6)]
    assert versions.serving.traffic.is_empty


def test_loading_twice_is_a_no_op_and_keeps_the_session(env, open_versions):
    versions, ref = open_versions(), make_package(env, 0.3)
    versions.load(ref.uri, ref.digest, epoch=1)
    before = versions.serving.loaded[ref.digest]
    versions.load(ref.uri, ref.digest, epoch=1)
    assert versions.serving.loaded[ref.digest] is before


@pytest.mark.parametrize("write", ["load", "unload", "set_weights"])
def test_every_write_of_an_older_epoch_is_refused_and_changes_nothing(env, open_versions, write):
    versions, one, two = open_versions(), make_package(env, 0.3), make_package(env, 0.6)
    versions.load(one.uri, one.digest, epoch=5)
    before = versions.serving
    with pytest.raises(StaleWriter, match="epoch 4 is stale, this server has seen 5"):
        if write == "load":
            versions.load(two.uri, two.digest, epoch=4)
        elif write == "unload":
            versions.unload(one.digest, epoch=4)
        else:
            versions.set_weights({one.digest: 100.0}, epoch=4)
    assert versions.serving is before


def test_a_newer_epoch_counts_even_when_the_write_itself_is_refused(env, open_versions):
    versions = open_versions()
    with pytest.raises(IntegrityError):
        versions.load(env.store_root + "/nowhere", "0" * 64, epoch=9)
    with pytest.raises(StaleWriter):
        versions.set_weights({}, epoch=8)
    assert open_versions().serving.epoch == 9


def test_a_holder_that_was_overtaken_while_loading_adds_nothing(env, open_versions, monkeypatch):
    versions, ref = open_versions(), make_package(env, 0.3)
    fetch = versions._copy.fetch

    def slow_fetch(uri, digest):
        versions.set_weights({}, epoch=2)  # somebody else, meanwhile
        return fetch(uri, digest)

    monkeypatch.setattr(versions._copy, "fetch", slow_fetch)
    with pytest.raises(StaleWriter):
        versions.load(ref.uri, ref.digest, epoch=1)
    assert not versions.serving.loaded


def test_a_bad_table_leaves_the_traffic_alone(env, open_versions):
    versions, ref = open_versions(), make_package(env, 0.3)
    versions.load(ref.uri, ref.digest, epoch=1)
    versions.set_weights({ref.digest: 100.0}, epoch=1)
    for table in ({ref.digest: 99.0}, {ref.digest: 50.0, "0" * 64: 50.0}, {"0" * 64: 100.0}):
        with pytest.raises(ConfigError):
            versions.set_weights(table, epoch=1)
        assert versions.serving.traffic.weights_pct == {ref.digest: 100.0}


def test_a_version_in_the_table_cannot_be_unloaded_and_others_leave_no_trace(env, open_versions, folder):
    versions, one, two = open_versions(), make_package(env, 0.3), make_package(env, 0.6)
    for ref in (one, two):
        versions.load(ref.uri, ref.digest, epoch=1)
    versions.set_weights({one.digest: 100.0}, epoch=1)
    with pytest.raises(ConfigError, match="move the traffic"):
        versions.unload(one.digest, epoch=1)
    versions.unload(two.digest, epoch=1)
    versions.unload("0" * 64, epoch=1)
    assert set(versions.serving.loaded) == {one.digest}
    assert [p.name for p in (folder / "packages").iterdir()] == [one.digest]


def test_a_restart_serves_the_same_with_the_store_gone(env, open_versions):
    versions, one, two = open_versions(), make_package(env, 0.3), make_package(env, 0.6)
    for ref in (one, two):
        versions.load(ref.uri, ref.digest, epoch=4)
    versions.set_weights({two.digest: 25.0, one.digest: 75.0}, epoch=4)
    shutil.rmtree(to_path(env.store_root))
    again = open_versions().serving
    assert list(again.traffic.weights_pct.items()) == [(two.digest, 25.0), (one.digest, 75.0)]
    assert again.epoch == 4
    assert again.loaded[one.digest].score([ROW]) == versions.serving.loaded[one.digest].score([ROW])


DAMAGE = [(name, "flip") for name in (*FILES, MANIFEST, SIGNATURE)]
DAMAGE += [("model.onnx", "truncate"), ("model.onnx", "delete"), (MANIFEST, "delete"), (SIGNATURE, "truncate")]


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_a_damaged_local_copy_never_serves(env, open_versions, folder, name, damage):
    versions, one = open_versions(), make_package(env, 0.3)
    versions.load(one.uri, one.digest, epoch=1)
    versions.set_weights({one.digest: 100.0}, epoch=1)
    file = folder / "packages" / one.digest / name
    data = file.read_bytes()
    if damage == "delete":
        file.unlink()
    else:
        file.write_bytes(bytes([data[0] ^ 1]) + data[1:] if damage == "flip" and data else data[:-1] or b"x")
    serving = open_versions().serving
    assert serving.traffic.is_empty
    assert not serving.loaded
    healed = open_versions()
    healed.load(one.uri, one.digest, epoch=2)  # the store still has it
    assert set(healed.serving.loaded) == {one.digest}


def test_half_a_copy_is_fetched_again(env, open_versions, folder):
    one = make_package(env, 0.3)
    (folder / "packages" / one.digest).mkdir(parents=True)
    (folder / "packages" / one.digest / "model.onnx").write_bytes(b"half")
    versions = open_versions()
    versions.load(one.uri, one.digest, epoch=1)
    assert set(versions.serving.loaded) == {one.digest}


def test_a_damaged_state_file_stops_the_start_and_says_what_to_do(open_versions, folder):
    folder.mkdir(parents=True)
    (folder / "traffic.json").write_text('{"loaded": 3}')
    with pytest.raises(IntegrityError, match="run the reconciler"):
        open_versions()


def test_saved_state_comes_back_in_order(env, folder):
    copy = LocalCopy(folder, key_folder=env.home / "keys")
    state = SavedState(
        loaded={"b": "file:///b", "a": "file:///a"},
        in_process=("a",),
        weights_pct={"z": 10.0, "a": 90.0},
        epoch=3,
        dead_man=DeadMan(stable="a", after_s=2.5),
        mirror=Mirror(digest="b", columns=("x", "y")),
        broken={"c": "its process was ended by signal 9"},
    )
    copy.save(state)
    assert list(copy.read().weights_pct) == ["z", "a"]
    assert copy.read() == state


def test_a_state_from_before_there_were_candidates_has_all_versions_in_the_gateway(env, folder):
    folder.mkdir(parents=True)
    (folder / "traffic.json").write_text('{"loaded": {"a": "file:///a"}, "weights_pct": [["a", 100.0]], "epoch": 2}')
    state = LocalCopy(folder, key_folder=env.home / "keys").read()
    assert state == SavedState(loaded={"a": "file:///a"}, in_process=("a",), weights_pct={"a": 100.0}, epoch=2)


@pytest.mark.parametrize(
    ("weights", "dead_man", "in_process", "stable"),
    [
        ({}, "", [], ""),
        ({"a": 100.0}, "", [], "a"),
        ({"c": 5.0, "s": 95.0}, "", [], "s"),
        ({"c": 95.0, "s": 5.0}, "s", [], "s"),
        ({"c": 95.0, "s": 5.0}, "", ["s"], "s"),
        ({"c": 95.0, "s": 5.0}, "elsewhere", ["elsewhere"], "elsewhere"),
        ({"c": 100.0}, "s", ["s"], "s"),
        ({"c": 50.0, "s": 50.0}, "", [], "s"),
        ({"c": 0.0, "s": 100.0}, "", ["c"], "s"),
    ],
    ids=str,
)
def test_who_answers_for_the_others(weights, dead_man, in_process, stable):
    armed = DeadMan(stable=dead_man, after_s=1.0) if dead_man else None
    assert _stable_of(Traffic(weights), armed, in_process) == stable


def test_a_restart_under_watch_that_lost_the_way_back_goes_on_with_who_has_the_traffic(env, open_versions, folder):
    versions, champion, candidate = open_versions(), make_package(env, 0.3), make_package(env, 0.6)
    for ref in (champion, candidate):
        versions.load(ref.uri, ref.digest, epoch=1)
    watched = {candidate.digest: 100.0}
    versions.set_weights(watched, epoch=1, dead_man=DeadMan(stable=champion.digest, after_s=60.0))
    assert versions.serving.stable == champion.digest
    assert open_versions().serving.stable == champion.digest
    (folder / "packages" / champion.digest / MANIFEST).unlink()
    serving = open_versions().serving
    assert (serving.traffic.weights_pct, serving.stable, serving.dead_man) == (watched, candidate.digest, None)


@pytest.mark.parametrize("digest", ["../../etc", "A" * 64, "0" * 63, ""])
def test_a_digest_that_is_no_digest_names_no_folder(env, folder, digest):
    with pytest.raises(ConfigError, match="64 lowercase hex"):
        LocalCopy(folder, key_folder=env.home / "keys").fetch(env.store_root, digest)


def test_the_admin_token_is_private_random_and_kept(tmp_path):
    path = tmp_path / "deep" / "admin.token"
    token = ensure_token(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert ensure_token(path) == token
    assert ensure_token(tmp_path / "other.token") != token
    assert len(token) >= 43


def test_a_token_others_can_read_is_refused(tmp_path):
    path = tmp_path / "admin.token"
    ensure_token(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        ensure_token(path)


@pytest.mark.parametrize(
    "header", [b"", b"Bearer ", b"Bearer tok", b"Bearer token ", b"bearer token", b"Bearer tokenx", b"token"]
)
def test_only_the_exact_token_is_the_token(header):
    assert not is_token(header, "token")
    assert is_token(b"Bearer token", "token")
