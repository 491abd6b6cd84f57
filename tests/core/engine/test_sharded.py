"""Sharded checkpoints: what was there at the call is what is kept, damage is noticed, and two are always left."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from clearway.contracts.errors import IntegrityError, Unavailable
from clearway.engine.keeping import Copy, State
from clearway.engine.sharded import LATEST, MANIFEST, ShardedKeeper
from clearway.engine.world import World
from clearway.infra.faults import InjectedFault
from clearway.infra.storage import LocalStorage, to_path
from engine_kit import Curve, digest, keep_in, run

ALONE = World()


def state(step: int) -> State:
    tensors = {"model.w": torch.full((64, 3), float(step)), "mean.w": torch.arange(192.0).view(64, 3) * step}
    return State(step=step, tensors=tensors, progress={"window_loss": 0.1 + 0.2, "history": [[step]]}, world_size=1)


def keeper(folder: Path, **fields) -> ShardedKeeper:
    return ShardedKeeper(keep_in(folder, is_sharded=True, **fields), ALONE)


def save(folder: Path, *steps: int, **fields) -> None:
    kept = keeper(folder, **fields)
    for step in steps:
        kept.save(state(step))
    kept.wait()


def load(folder: Path, **fields) -> State | None:
    return keeper(folder, **fields).load({name: torch.zeros_like(t) for name, t in state(0).tensors.items()})


def complete(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))


def test_what_was_saved_is_loaded_and_the_two_newest_are_kept(tmp_path):
    assert load(tmp_path) is None
    save(tmp_path, 1, 2, 3)
    assert complete(tmp_path) == ["step-000000002", "step-000000003"]
    assert (tmp_path / LATEST).read_text() == "step-000000003"
    loaded = load(tmp_path)
    assert loaded.step == 3
    assert loaded.progress == state(3).progress
    assert all(torch.equal(tensor, state(3).tensors[name]) for name, tensor in loaded.tensors.items())


def test_what_the_next_step_changes_in_place_is_not_in_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEARWAY_FAULT", "engine.before_shard=sleep:0.3")  # the writer is slower than the next step
    live, kept = state(1), keeper(tmp_path)
    kept.save(live)
    for tensor in live.tensors.values():
        tensor.fill_(99.0)
    kept.wait()
    loaded = load(tmp_path)
    assert all(torch.equal(tensor, state(1).tensors[name]) for name, tensor in loaded.tensors.items())


@pytest.mark.parametrize("damage", ["flip", "truncate", "missing", "other step", "no manifest", "other job"])
def test_a_damaged_newest_is_stepped_over_aloud(tmp_path, caplog, damage):
    save(tmp_path, 1)
    save(tmp_path, 2, job="x" * 64 if damage == "other job" else "j" * 64)
    _damage(tmp_path, damage)
    with caplog.at_level(logging.WARNING):
        loaded = load(tmp_path)
    assert loaded.step == 1
    assert torch.equal(loaded.tensors["model.w"], state(1).tensors["model.w"])
    assert damage == "no manifest" or "step-000000002" in caplog.text  # without a manifest it never was one
    save(tmp_path, 2)  # the same step again, beside what is left of the damaged one
    assert load(tmp_path).step == 2


def test_no_intact_checkpoint_stops_instead_of_starting_over(tmp_path):
    save(tmp_path, 1, 2)
    for step in (1, 2):
        (tmp_path / f"step-{step:09d}" / "__0_0.distcp").write_bytes(b"")
    with pytest.raises(IntegrityError, match="none of 2"):
        load(tmp_path)


@pytest.mark.parametrize(
    "point",
    ["before_staging", "after_staging", "before_shard", "after_shard", "before_digests", "before_manifest"],
)
def test_a_save_that_broke_off_leaves_the_previous_one(tmp_path, monkeypatch, point):
    save(tmp_path, 1)
    monkeypatch.setenv("CLEARWAY_FAULT", f"engine.{point}=raise")
    with pytest.raises((InjectedFault, Unavailable)):
        save(tmp_path, 2)
    monkeypatch.delenv("CLEARWAY_FAULT")
    assert load(tmp_path).step == 1
    assert complete(tmp_path) == ["step-000000001"]
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-000000001"]  # the broken one is gone


@pytest.mark.parametrize("point", ["before_pointer", "before_retention", "inside_retention"])
def test_there_are_never_fewer_than_two_complete_ones(tmp_path, monkeypatch, point):
    save(tmp_path, 1, 2)
    monkeypatch.setenv("CLEARWAY_FAULT", f"engine.{point}=raise")
    with pytest.raises(InjectedFault):
        save(tmp_path, 3)
    assert len(complete(tmp_path)) >= 2
    assert (tmp_path / LATEST).read_text() in complete(tmp_path)
    monkeypatch.delenv("CLEARWAY_FAULT")
    assert load(tmp_path).step == 3


def test_a_machine_that_lost_its_disk_goes_on_from_the_copy(tmp_path):
    copy = Copy(storage=LocalStorage(), uri=(tmp_path / "far").as_uri())
    save(tmp_path / "near", 1, 2, 3, copy=copy)
    assert complete(tmp_path / "far") == ["step-000000002", "step-000000003"]
    shutil.rmtree(tmp_path / "near")
    assert load(tmp_path / "near", copy=copy).step == 3


def test_a_partial_copy_is_none(tmp_path, monkeypatch):
    copy = Copy(storage=LocalStorage(), uri=(tmp_path / "far").as_uri())
    save(tmp_path / "near", 1, copy=copy)
    monkeypatch.setenv("CLEARWAY_FAULT", "engine.before_copied_manifest=raise")
    with pytest.raises(InjectedFault):
        save(tmp_path / "near", 2, copy=copy)
    assert list(to_path(copy.uri).glob("step-000000002/*.distcp"))
    shutil.rmtree(tmp_path / "near")
    assert load(tmp_path / "near", copy=copy).step == 1


def test_a_training_resumes_from_its_shards(tmp_path):
    whole = digest(run(ALONE))
    keeping = keep_in(tmp_path, is_sharded=True)
    assert not run(ALONE, task=Curve(), keeping=keeping, stop_after=13).is_complete
    rest = run(ALONE, task=Curve(), keeping=keeping)
    assert rest.resumed_step == 13
    assert digest(rest) == whole


def _damage(folder: Path, kind: str) -> None:
    newest, shard = folder / "step-000000002", folder / "step-000000002" / "__0_0.distcp"
    data = shard.read_bytes()
    if kind == "flip":
        shard.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    elif kind == "truncate":
        shard.write_bytes(data[: len(data) // 2])
    elif kind == "missing":
        shard.unlink()
    elif kind == "other step":
        shutil.copy(folder / "step-000000001" / shard.name, shard)
    elif kind == "no manifest":
        assert json.loads((newest / MANIFEST).read_bytes())["step"] == 2
        (newest / MANIFEST).unlink()
