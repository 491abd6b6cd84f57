"""Checkpoints of small models: one file per save, complete or absent, never unpickled.

A file is the SHA-256 of what follows, a newline, then safetensors with the progress as metadata. It is written under a
temporary name, synced and renamed; the two newest are kept. Resume takes the newest that is intact and says so when it
had to step over one; if files exist and none is intact it stops, because restarting in silence would hide a sick disk.
"""

import hashlib
import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

from clearway.contracts.errors import IntegrityError
from clearway.engine.keeping import NUM_KEPT, Keeping, State, check_world
from clearway.engine.world import World
from clearway.infra.durable import sync_folder
from clearway.infra.faults import fault

LOG = logging.getLogger("clearway.train")
_DIGEST_CHARS = 64
_NAME = "step-{step:09d}.ckpt"


class FileKeeper:
    """Rank 0 writes for all, because all hold the same, and tells all what it reads: others may have other folders."""

    def __init__(self, keeping: Keeping, world: World) -> None:
        self._keeping, self._world = keeping, world

    def save(self, state: State) -> None:
        if self._world.rank == 0:
            save(self._keeping.folder, state, job=self._keeping.job)

    def wait(self) -> None:
        """Saving has waited already."""

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> State | None:
        state = self._found()
        if state is None:
            return None
        check_world(self._keeping, saved=state.world_size, now=self._world.size)
        for name, tensor in sorted(tensors.items()):
            tensor.copy_(self._told(state, name, tensor))
        return state

    def _found(self) -> State | None:
        """The newest state, with tensors on rank 0 alone. Raises: IntegrityError, on all ranks."""
        if self._world.size == 1:
            return load_newest(self._keeping.folder, job=self._keeping.job)
        state, told = None, list[Any]([None])
        if self._world.rank == 0:
            try:
                state = load_newest(self._keeping.folder, job=self._keeping.job)
                told = [None if state is None else replace(state, tensors={})]
            except IntegrityError as error:
                told = [error]
        dist.broadcast_object_list(told, src=0)
        if isinstance(told[0], IntegrityError):
            raise told[0]
        return state if self._world.rank == 0 else told[0]

    def _told(self, state: State, name: str, like: Tensor) -> Tensor:
        if self._world.size == 1:
            return state.tensors[name]
        mine = state.tensors[name] if self._world.rank == 0 else torch.empty_like(like, device="cpu")
        dist.broadcast(mine, src=0)
        return mine


def save(folder: Path, state: State, *, job: str) -> Path:
    """Write durably, then forget all but the newest two."""
    head = {"job": job, "step": state.step, "world_size": state.world_size, "progress": state.progress}
    body = safetensors.torch.save(_separate(state.tensors), metadata={"head": json.dumps(head)})
    path = folder / _NAME.format(step=state.step)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(hashlib.sha256(body).hexdigest().encode() + b"\n")
        fault("engine.inside_file")
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    fault("engine.before_rename")
    temporary.replace(path)
    sync_folder(folder)
    fault("engine.after_rename")
    for old in _found(folder)[NUM_KEPT:]:
        old.unlink()
    fault("engine.after_file")
    return path


def load_newest(folder: Path, *, job: str) -> State | None:
    """The newest intact checkpoint of this job, None if there is none. Raises: IntegrityError if all are broken."""
    found = _found(folder)
    for path in found:
        try:
            return read(path, job=job)
        except IntegrityError as error:
            LOG.warning("checkpoint skipped: %s", error)
    if found:
        raise none_intact(len(found), folder)
    return None


def read(path: Path, *, job: str) -> State:
    """Raises: IntegrityError if the bytes are damaged or belong to another job."""
    data = path.read_bytes()
    digest, body = data[:_DIGEST_CHARS], data[_DIGEST_CHARS + 1 :]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise IntegrityError(f"checkpoint {path} is damaged: its bytes do not match its digest; delete it")
    head_size = int.from_bytes(body[:8], "little")
    head = json.loads(json.loads(body[8 : 8 + head_size])["__metadata__"]["head"])
    check_job(head["job"], job=job, path=path)
    return State(
        step=head["step"],
        tensors=safetensors.torch.load(body),
        progress=head["progress"],
        world_size=head["world_size"],
    )


def check_job(found: str, *, job: str, path: Path) -> None:
    """Raises: IntegrityError."""
    if found != job:
        raise IntegrityError(f"checkpoint {path} is of job {found}, this is {job}; train in a folder of its own")


def none_intact(count: int, folder: Path) -> IntegrityError:
    """What to say when nothing can be resumed."""
    return IntegrityError(
        f"none of {count} checkpoints in {folder} is intact; check the disk, delete the folder to train from scratch"
    )


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """In host memory; what two names share (tied weights) twice, because the format wants it so."""
    separate, seen = {}, set[int]()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu()
        separate[name] = own.clone() if own.data_ptr() in seen else own
        seen.add(own.data_ptr())
    return separate


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"), reverse=True)
