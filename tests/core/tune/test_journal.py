"""Entries and claims survive whoever dies: half a line, a held lock, a taken task."""

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from clearway.tune.agenda import Kind, Task
from clearway.tune.journal import FILE, NUMBER, Journal

TASK = Task(number=3, kind=Kind.TRIAL, index=3, round=0, num_known=0)
AGAIN = Task(number=4, kind=Kind.AGAIN, index=0, round=1, num_known=4)
HOLD = """
import sys
from pathlib import Path
from clearway.tune.agenda import Kind, Task
from clearway.tune.journal import Journal, KernelLock
folder, what = Path(sys.argv[1]), sys.argv[2]
if what == "task":
    with Journal(folder).claimed(Task(number=3, kind=Kind.TRIAL, index=3, round=0, num_known=0)) as before:
        print(before, flush=True)
        sys.stdin.read()
lock = KernelLock(folder / "journal.log")
lock.acquire()
with (folder / "journal.log").open("ab") as file:
    file.write(b'{"op_code":4,"half a li')
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Journal.create(tmp_path / "study", num_values=1)
    return tmp_path / "study"


def entry(value: float):
    return create_trial(state=TrialState.COMPLETE, values=[value])


def held(folder: Path, what: str) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip(), "the child never took the lock"
    return child


def killed(child: "subprocess.Popen[str]") -> None:
    child.kill()
    child.communicate()


def test_entries_are_seen_by_every_journal_of_the_folder(folder: Path) -> None:
    Journal.create(folder, num_values=1)  # again, as a second attempt does
    one, other = Journal(folder), Journal(folder)
    one.enter(TASK, entry(0.5))
    other.enter(AGAIN, entry(0.25))
    for journal in (one, other):
        assert {n: e.values for n, e in journal.ended().items()} == {3: [0.5], 4: [0.25]}
    storage = JournalStorage(JournalFileBackend(str(folder / FILE)))
    trials = optuna.load_study(study_name="trial", storage=storage).get_trials()
    assert [t.user_attrs[NUMBER] for t in trials] == [3], "Optuna's own tools see the trials, and no later judgement"


def test_a_task_is_taken_once_and_counts_its_attempts(folder: Path) -> None:
    one, other = Journal(folder), Journal(folder)
    with one.claimed(TASK) as before:
        assert before == 0
        with other.claimed(TASK) as second:
            assert second is None
    with other.claimed(TASK) as before:
        assert before == 1, "the attempt before ended without an entry"
        other.enter(TASK, entry(0.5))
    with one.claimed(TASK) as before:
        assert before is None, "it has ended"
    assert one.num_deaths(5) == 1


@pytest.mark.slow
def test_the_claim_of_a_killed_process_is_free_at_once(folder: Path) -> None:
    child = held(folder, "task")
    journal = Journal(folder)
    with journal.claimed(TASK) as before:
        assert before is None
    killed(child)
    with journal.claimed(TASK) as before:
        assert before == 1


@pytest.mark.slow
def test_half_a_line_of_a_killed_writer_is_cut_off_by_the_next(folder: Path) -> None:
    """Optuna's own lock would wait half a minute, and its journal would be unreadable from then on."""
    Journal(folder).enter(TASK, entry(0.5))
    child = held(folder, "journal")
    killed(child)
    assert not (folder / FILE).read_bytes().endswith(b"\n"), "nothing was torn, so nothing is tested"
    journal = Journal(folder)
    journal.enter(AGAIN, entry(0.25))
    assert set(Journal(folder).ended()) == {3, 4}
    assert (folder / FILE).read_bytes().endswith(b"\n")
    assert not os.path.lexists(folder / "journal.log.lock"), "no lock file of Optuna's own"
