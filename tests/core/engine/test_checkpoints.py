"""A checkpoint is complete or absent, and the newest complete one wins."""

import logging
from pathlib import Path

import pytest
import torch

from clearway.contracts.errors import IntegrityError
from clearway.engine.checkpoints import load_newest, read
from clearway.engine.checkpoints import save as save_state
from clearway.engine.keeping import State
from clearway.infra.faults import InjectedFault

JOB = "j" * 64


PROGRESS = {"history": [[1.0, 0.1, 0.7, 1e-3]], "window_loss": 0.1 + 0.2}


def checkpoint(step: int) -> State:
    tensors = {"model.w": torch.full((3, 2), float(step)), "mean.w": torch.arange(6.0).view(3, 2)}
    return State(step=step, tensors=tensors, progress=PROGRESS, world_size=1)


def save(folder: Path, state: State, job: str = JOB) -> Path:
    return save_state(folder, state, job=job)


def test_what_was_saved_is_loaded(tmp_path):
    save(tmp_path, checkpoint(7))
    loaded = load_newest(tmp_path, job=JOB)
    assert loaded is not None
    assert (loaded.step, loaded.progress, loaded.world_size) == (7, PROGRESS, 1)
    assert torch.equal(loaded.tensors["model.w"], torch.full((3, 2), 7.0))


def test_tied_weights_are_kept_under_both_names(tmp_path):
    tied = torch.arange(4.0)
    tensors = {"model.first": tied, "model.last": tied}
    save(tmp_path, State(step=1, tensors=tensors, progress=PROGRESS, world_size=1))
    loaded = load_newest(tmp_path, job=JOB)
    assert loaded is not None
    assert all(torch.equal(loaded.tensors[name], tied) for name in tensors)


def test_the_two_newest_are_kept(tmp_path):
    for step in (5, 10, 15):
        save(tmp_path, checkpoint(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000010.ckpt", "step-000000015.ckpt"]


def test_nothing_saved_is_nothing_loaded(tmp_path):
    assert load_newest(tmp_path, job=JOB) is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "other job"])
def test_a_damaged_newest_is_stepped_over_aloud(tmp_path, caplog, damage):
    save(tmp_path, checkpoint(1))
    path = save(tmp_path, checkpoint(2), job="x" * 64 if damage == "other job" else JOB)
    _damage(path, damage)
    with caplog.at_level(logging.WARNING):
        loaded = load_newest(tmp_path, job=JOB)
    assert loaded is not None
    assert loaded.step == 1
    assert "step-000000002" in caplog.text


def test_no_intact_checkpoint_stops_instead_of_starting_over(tmp_path):
    for step in (1, 2):
        _damage(save(tmp_path, checkpoint(step)), "flip")
    with pytest.raises(IntegrityError, match="none of 2"):
        load_newest(tmp_path, job=JOB)


def test_every_single_byte_change_is_noticed(tmp_path):
    path = save(tmp_path, checkpoint(3))
    good = path.read_bytes()
    for i in [i for i in range(len(good)) if i != 64]:  # byte 64 is the line break after the digest
        path.write_bytes(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :])
        with pytest.raises(IntegrityError):
            read(path, job=JOB)


@pytest.mark.parametrize("point", ["engine.inside_file", "engine.before_rename"])
def test_a_crash_while_saving_leaves_the_previous_one(tmp_path, monkeypatch, point):
    save(tmp_path, checkpoint(1))
    monkeypatch.setenv("CLEARWAY_FAULT", f"{point}=raise")
    with pytest.raises(InjectedFault):
        save(tmp_path, checkpoint(2))
    loaded = load_newest(tmp_path, job=JOB)
    assert loaded is not None
    assert loaded.step == 1


def _damage(path: Path, kind: str) -> None:
    data = path.read_bytes()
    if kind == "flip":
        path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    elif kind == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
