"""What has ended, in an Optuna journal file that any number of processes of this machine share, and who works on what.

    <study>/journal.log          Optuna's journal: one entry per ended task, written whole and once
    <study>/tasks/0007.lock      held by the process that works on task 7; one byte per attempt

A journal has no heartbeats. Whether a worker lives is asked of the kernel: its lock ends with it, however it ends, and
the next process that finds the task free takes it up. A task is entered only by who holds its lock and after a look
whether it is entered already, so none is lost and none counts twice.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from clearway.infra.faults import fault
from clearway.tune.agenda import Kind, Task

NUMBER = "number"  # user attribute of an entry: its task's place in the agenda
FILE, TASKS = "journal.log", "tasks"
_NEW_LINE = b"\n"


class KernelLock(JournalFileOpenLock):
    """The journal's lock as a lock of the kernel, which ends with its holder.

    Optuna's own are files that a killed holder leaves behind: everybody then waits half a minute and takes it away, at
    times from one another. A holder killed while writing may leave half a line; whoever comes next cuts it off.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal, self._handle = journal, -1

    def acquire(self) -> bool:
        self._handle = os.open(self._journal.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        cut_off_half_line(self._journal)
        fault("tune.inside_journal_lock")
        return True

    def release(self) -> None:
        os.close(self._handle)


def cut_off_half_line(journal: Path) -> None:
    """Drop what follows the last new line; only for a holder of the lock."""
    with journal.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        at = end
        while at > 0:
            file.seek(at - 1)
            if file.read(1) == _NEW_LINE:
                break
            at -= 1
        if at != end:
            file.truncate(at)


class Journal:
    """What the workers of a study share; made by `create` before the first of them starts."""

    def __init__(self, folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._folder = folder
        path = folder / FILE
        self._storage = JournalStorage(JournalFileBackend(str(path), lock_obj=KernelLock(path)))
        self._studies = {kind: self._load(kind) for kind in Kind}

    @staticmethod
    def create(folder: Path, *, num_values: int) -> None:
        """Make what is not there yet; by one process at a time."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line per study and trial says less than our own
        (folder / TASKS).mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=KernelLock(path)))
        for kind in Kind:
            directions = [StudyDirection.MINIMIZE] * num_values
            optuna.create_study(storage=storage, study_name=kind.value, directions=directions, load_if_exists=True)

    def ended(self) -> dict[int, FrozenTrial]:
        """Entries by the number of their task."""
        entries = (t for study in self._studies.values() for t in study.get_trials(deepcopy=False))
        return {entry.user_attrs[NUMBER]: entry for entry in entries}

    def enter(self, task: Task, entry: FrozenTrial) -> None:
        """For the holder of the task's lock only."""
        entry.user_attrs[NUMBER] = task.number
        self._studies[task.kind].add_trial(entry)

    @contextmanager
    def claimed(self, task: Task) -> Iterator[int | None]:
        """Hold the task: yields how many attempts began before, or None if another holds it or it has ended."""
        handle = os.open(self._folder / TASKS / f"{task.number:04d}.lock", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            yield self._begun(task, handle)
        finally:
            os.close(handle)

    def _begun(self, task: Task, handle: int) -> int | None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if task.number in self.ended():
            return None
        num_before = os.fstat(handle).st_size
        os.write(handle, b"+")
        return num_before

    def num_deaths(self, num_tasks: int) -> int:
        """Attempts that ended without an entry; only when no worker is at work."""
        files = (self._folder / TASKS / f"{number:04d}.lock" for number in range(num_tasks))
        return sum(file.stat().st_size for file in files if file.exists()) - len(self.ended())

    def _load(self, kind: Kind) -> Study:
        return optuna.load_study(study_name=kind.value, storage=self._storage)
