"""Checkpoints of large models: every rank writes its part, in the background, while training goes on.

    step-000000040/            a folder of its own per save, never written to again
        __0_0.distcp, .metadata      what torch.distributed.checkpoint writes, synced
        manifest.json                job, progress, and the digest of every file: written last, makes it complete
    latest                     names the newest complete folder; moved when that is durable

A save copies the state before it returns, because the next step changes it in place. Digests are checked before torch
reads a byte: its metadata is a pickle. A damaged checkpoint is set aside aloud and the previous one taken.
"""

import hashlib
import json
import logging
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_loader import load as load_shards
from torch.distributed.checkpoint.state_dict_saver import save as save_shards

from clearway.contracts.errors import IntegrityError, Unavailable
from clearway.contracts.manifest import canonical_json
from clearway.engine.checkpoints import check_job, none_intact
from clearway.engine.copying import pull, push
from clearway.engine.keeping import NUM_KEPT, Keeping, State, check_world
from clearway.engine.world import World
from clearway.infra.durable import sync_folder, write_temporary
from clearway.infra.faults import fault

LOG = logging.getLogger("clearway.train")
MANIFEST, LATEST, DAMAGED = "manifest.json", "latest", ".damaged"
# Ranks may differ this much in how long their part takes to write.
WRITE_TIMEOUT = timedelta(minutes=10)


class ShardedKeeper:
    """Writes in one background thread per rank; a save first waits for the one before it."""

    def __init__(self, keeping: Keeping, world: World) -> None:
        self._keeping, self._world = keeping, world
        # Of its own, so that saving never mixes with what the loop sends.
        self._group = dist.new_group(backend="gloo", timeout=WRITE_TIMEOUT) if world.size > 1 else None
        is_pinned = world.device.type == "cuda"
        self._stager = DefaultStager(StagingOptions(is_pinned, False, False, False))
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._saved_step = -1

    def save(self, state: State) -> None:
        self.wait()
        if state.step == self._saved_step:
            return
        fault("engine.before_staging")
        folder = self._keeping.folder / self._from_rank_0(lambda: _free_name(self._keeping.folder, state.step))
        staged = self._stager.stage(state.tensors)
        head = canonical_json(
            {
                "job": self._keeping.job,
                "step": state.step,
                "world_size": state.world_size,
                "progress": json.dumps(state.progress),  # text keeps every bit of a float, and NaN out of the JSON
            }
        )
        fault("engine.after_staging")
        self._saved_step = state.step
        self._thread = threading.Thread(target=self._write, args=(folder, staged, head), name="clearway-checkpoint")
        self._thread.start()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> State | None:
        found = self._from_rank_0(self._candidates)
        for name in found:
            folder = self._keeping.folder / name
            why = self._damage(folder)
            if not why:
                return self._load(folder, tensors)
            if self._world.rank == 0:
                LOG.warning("checkpoint skipped: %s", why)
                if (folder / MANIFEST).exists():
                    folder.rename(folder.with_name(name + DAMAGED))
        if found:
            raise none_intact(len(found), self._keeping.folder)
        return None

    def _write(self, folder: Path, staged: Any, head: bytes) -> None:
        try:
            self._write_shards(folder, staged)
            digests = self._everyones_digests(folder)
            fault("engine.before_manifest")
            if self._world.rank == 0:
                self._complete(folder, head, digests)
            if self._group is not None:
                dist.barrier(self._group)  # complete for one is complete for all
            fault("engine.after_save")
        except BaseException as error:  # noqa: BLE001 - raised by `wait`, in the thread that can act on it
            self._error = error

    def _write_shards(self, folder: Path, staged: Any) -> None:
        writer = _Writer(folder, sync_files=True, overwrite=False)
        is_alone = self._world.size == 1
        try:
            with _alone_is_fine():
                save_shards(staged, storage_writer=writer, process_group=self._group, no_dist=is_alone)
        except CheckpointException as error:  # no Exception, so nobody would expect it
            raise Unavailable(f"checkpoint {folder} could not be written: {error}; check the disk") from error
        fault("engine.before_digests")

    def _everyones_digests(self, folder: Path) -> dict[str, str]:
        """Each rank reads back its own files; rank 0 also the metadata."""
        mine = sorted(folder.glob(f"__{self._world.rank}_*"))
        if self._world.rank == 0:
            mine.append(folder / ".metadata")
        digests = {path.name: _digest(path) for path in mine}
        if self._group is None:
            return digests
        parts: list[dict[str, str]] = [{} for _ in range(self._world.size)]
        dist.all_gather_object(parts, digests, group=self._group)
        return {name: digest for part in parts for name, digest in part.items()}

    def _complete(self, folder: Path, head: bytes, digests: dict[str, str]) -> None:
        sync_folder(folder)
        _write(folder / MANIFEST, canonical_json(json.loads(head) | {"files": digests}))
        sync_folder(self._keeping.folder)
        fault("engine.before_pointer")
        _write(self._keeping.folder / LATEST, folder.name.encode())
        fault("engine.before_retention")
        for old in _complete_folders(self._keeping.folder)[NUM_KEPT:]:
            (old / MANIFEST).unlink()  # incomplete from here on, whatever of the rest is still there
            fault("engine.inside_retention")
            shutil.rmtree(old)
        if self._keeping.copy is not None:
            push(folder, self._keeping.copy, manifest=MANIFEST)

    def _candidates(self) -> list[str]:
        """Names of complete checkpoints, newest first; what killed saves left is removed."""
        root = self._keeping.folder
        if self._keeping.copy is not None and not _complete_folders(root):
            pull(self._keeping.copy, root, manifest=MANIFEST)
        complete = _complete_folders(root)
        for other in _step_folders(root):
            if other not in complete and not other.name.endswith(DAMAGED):
                shutil.rmtree(other)
        return [folder.name for folder in complete]

    def _damage(self, folder: Path) -> str:
        """What is wrong with it, "" if nothing; ranks share the reading."""
        mine = ""
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
            check_job(manifest["job"], job=self._keeping.job, path=folder)
            for name in sorted(manifest["files"])[self._world.rank :: self._world.size]:
                if not (folder / name).is_file() or _digest(folder / name) != manifest["files"][name]:
                    raise IntegrityError(f"{folder / name} is missing or does not match its digest")
        except (IntegrityError, ValueError, KeyError, OSError) as error:
            mine = f"{folder}: {error}"
        if self._group is None:
            return mine
        found = [""] * self._world.size
        dist.all_gather_object(found, mine, group=self._group)
        return next((why for why in found if why), "")

    def _load(self, folder: Path, tensors: dict[str, Tensor]) -> State:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        check_world(self._keeping, saved=manifest["world_size"], now=self._world.size)
        reader = FileSystemReader(folder)
        is_alone = self._world.size == 1
        with _alone_is_fine():
            load_shards(dict(tensors), storage_reader=reader, process_group=self._group, no_dist=is_alone)
        self._saved_step = manifest["step"]
        return State(
            step=manifest["step"],
            tensors=tensors,
            progress=json.loads(manifest["progress"]),
            world_size=manifest["world_size"],
        )

    def _from_rank_0(self, ask: Any) -> Any:
        """What rank 0 finds, told to all: another rank might look at the folder a moment later."""
        answer = [ask() if self._world.rank == 0 else None]
        if self._group is not None:
            dist.broadcast_object_list(answer, src=0, group=self._group)
        return answer[0]


class _Writer(FileSystemWriter):
    """torch's writer, with places to be killed at."""

    def write_data(self, plan: Any, planner: Any) -> Any:
        fault("engine.before_shard")
        written = super().write_data(plan, planner)
        fault("engine.after_shard")
        return written


@contextmanager
def _alone_is_fine() -> Iterator[None]:
    """torch warns of every save and load by a single process, which is what was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _free_name(root: Path, step: int) -> str:
    """A damaged or half-written checkpoint of the same step keeps its name."""
    name = f"step-{step:09d}"
    attempts = (name, *(f"{name}.{i}" for i in range(1, 1000)))
    return next(name for name in attempts if not (root / name).exists())


def _step_folders(root: Path) -> list[Path]:
    return sorted((path for path in root.glob("step-*") if path.is_dir()), reverse=True)


def _complete_folders(root: Path) -> list[Path]:
    """Newest first."""
    folders = _step_folders(root)
    return [f for f in folders if not f.name.endswith(DAMAGED) and (f / MANIFEST).is_file()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, data: bytes) -> None:
    write_temporary(path, data).replace(path)
    sync_folder(path.parent)
