"""Checkpoints: one file per save, complete or absent, never unpickled.

A file is the SHA-256 of what follows, a newline, then safetensors with the progress as metadata. It is written under a
temporary name, synced and renamed; the two newest are kept. Resume takes the newest that is intact and says so when it
had to step over one; if files exist and none is intact it stops, because restarting in silence would hide a sick disk.
Below about 100 MB one file is as fast as any asynchronous scheme (measured: 3.6 ms for 2 MB, 184 ms for 103 MB).
"""

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from clearway.contracts.errors import IntegrityError
from clearway.infra.faults import fault

LOG = logging.getLogger("clearway.train")
KEEP = 2
_DIGEST_CHARS = 64
_NAME = "step-{step:09d}.ckpt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """State after `step` steps.

    Args:
        job: digest of everything that decides the result; another job's state is refused.
        tensors: parameters and optimizer state by name.
        history: what was measured so far, see `fit.Point`.
        loss_sum: loss summed over the rows of the current, unfinished report window.
    """

    job: str
    step: int
    tensors: dict[str, Tensor]
    history: list[list[float]]
    loss_sum: float


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write durably, then forget all but the newest two."""
    head = {"job": checkpoint.job, "step": checkpoint.step, "history": checkpoint.history, "loss": checkpoint.loss_sum}
    body = safetensors.torch.save(checkpoint.tensors, metadata={"progress": json.dumps(head)})
    path = folder / _NAME.format(step=checkpoint.step)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(hashlib.sha256(body).hexdigest().encode() + b"\n")
        fault("train.inside_checkpoint")
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    fault("train.before_checkpoint_rename")
    temporary.replace(path)
    _fsync(folder)
    fault("train.after_checkpoint")
    for old in _found(folder)[KEEP:]:
        old.unlink()
    return path


def load_newest(folder: Path, *, job: str) -> Checkpoint | None:
    """The newest intact checkpoint of this job, None if there is none. Raises: IntegrityError if all are broken."""
    found = _found(folder)
    for path in found:
        try:
            return read(path, job=job)
        except IntegrityError as error:
            LOG.warning("checkpoint skipped: %s", error)
    if found:
        raise IntegrityError(
            f"none of {len(found)} checkpoints in {folder} is intact; check the disk, "
            "delete the folder to train from scratch"
        )
    return None


def read(path: Path, *, job: str) -> Checkpoint:
    """Raises: IntegrityError if the bytes are damaged or belong to another job."""
    data = path.read_bytes()
    digest, body = data[:_DIGEST_CHARS], data[_DIGEST_CHARS + 1 :]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise IntegrityError(f"checkpoint {path} is damaged: its bytes do not match its digest; delete it")
    head_size = int.from_bytes(body[:8], "little")
    head = json.loads(json.loads(body[8 : 8 + head_size])["__metadata__"]["progress"])
    if head["job"] != job:
        raise IntegrityError(f"checkpoint {path} is of job {head['job']}, this is {job}; train in a folder of its own")
    return Checkpoint(
        job=job,
        step=head["step"],
        tensors=safetensors.torch.load(body),
        history=head["history"],
        loss_sum=head["loss"],
    )


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"), reverse=True)


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
