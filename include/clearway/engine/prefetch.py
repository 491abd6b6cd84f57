"""Batches before they are needed: read in a thread, pinned, copied while the device still computes the previous one."""

import queue
import threading
from collections.abc import Iterator
from typing import Protocol

import torch

from clearway.engine.order import Sampler
from clearway.engine.task import Batch, Task
from clearway.engine.world import World

# Micro-batches read ahead. Two hide a read as long as a step; more only cost memory.
DEPTH = 2
# A waiting reader looks this often whether anybody still wants its batch.
_LOOK_S = 0.1


class Feed(Protocol):
    """Batches in the order of the steps."""

    def next(self) -> Batch:
        """The next micro-batch, on the device."""
        ...

    def close(self) -> None:
        """Stop reading. Idempotent."""
        ...


def open_feed(task: Task, sampler: Sampler, world: World, *, first_step: int, num_steps: int) -> Feed:
    """Micro-batches of steps `first_step` to `num_steps` - 1."""
    parts = (part for step in range(first_step, num_steps) for part in sampler.parts(step))
    return Resident(task, parts) if task.is_resident else Prefetch(task, parts, world)


class Resident:
    """Slices of tensors that are on the device: nothing to wait for, nothing to read ahead."""

    def __init__(self, task: Task, parts: Iterator[torch.Tensor]) -> None:
        self._task, self._parts = task, parts

    def next(self) -> Batch:
        return self._task.batch(next(self._parts))

    def close(self) -> None:
        pass


class Prefetch:
    """Reads in a thread, so a task's `batch` may block on a disk; it should hold no lock that the loop needs."""

    def __init__(self, task: Task, parts: Iterator[torch.Tensor], world: World) -> None:
        self._task, self._parts, self._device = task, parts, world.device
        self._queue: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=DEPTH)
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="clearway-prefetch", daemon=True)
        self._thread.start()

    def next(self) -> Batch:
        found = self._queue.get()
        if isinstance(found, BaseException):
            raise found
        return {name: tensor.to(self._device, non_blocking=True) for name, tensor in found.items()}

    def close(self) -> None:
        self._is_closed.set()
        self._thread.join()

    def _read(self) -> None:
        try:
            for part in self._parts:
                batch = self._task.batch(part)
                if self._device.type == "cuda":
                    batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
                if not self._put(batch):
                    return
        except BaseException as error:  # noqa: BLE001 - raised where the batch is missed
            self._put(error)

    def _put(self, item: Batch | BaseException) -> bool:
        """False if nobody wants it any more."""
        while not self._is_closed.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_S)
                return True
            except queue.Full:
                continue
        return False
