"""Rows of copied requests, from captured answers and CloudWatch's minutes: paired by what was asked, counted once."""

import dataclasses
import json
from datetime import UTC, datetime

import pytest

from clearway.contracts.observed import ArmCounts
from clearway.infra.aws.endpoint_control import Copies, Giving
from clearway.infra.aws.endpoint_copies import CopiedRows
from clearway.infra.aws.endpoint_metrics import Counted
from clearway.infra.storage import LocalStorage, join

BEGAN_S = 1_700_000_000.0
OURS, THEIRS = "a" * 64, "b" * 64
COPIES = Copies(
    digest=THEIRS,
    variant="variant-2-shadow",
    control=OURS,
    control_variant="variant-1",
    giving=Giving.GIVEN,
    since_s=BEGAN_S,
)
VARIANTS = {OURS: "variant-1", THEIRS: "variant-2-shadow"}


class Figures:
    """What CloudWatch says, whoever asks."""

    def __init__(self):
        self.until_s, self.requests, self.errors = BEGAN_S + 600, {OURS: 0, THEIRS: 0}, {OURS: {}, THEIRS: {}}
        self.is_late = False

    def read(self, held, *, now_s, since_s):
        assert ({digest: version.variant for digest, version in held.items()}, since_s) == (VARIANTS, BEGAN_S)
        arms = {digest: self.arm(num) for digest, num in self.requests.items()}
        at_s = now_s - 1000 if self.is_late else now_s + 100
        return Counted(at_s=at_s, begin_s=0, arms=arms, until_s=self.until_s, errors=self.errors)

    def arm(self, num):
        return ArmCounts(
            num_requests=num, num_errors=0, latencies=(), num_scores=0, score_sum=0.0, score_square_sum=0.0
        )


@pytest.fixture
def figures():
    return Figures()


class Desk:
    """Writes captured answers and reads rows, half a minute later each time."""

    def __init__(self, home, figures):
        self.figures = figures
        self.storage, self.root, self.num, self.now_s = LocalStorage(), (home / "store").as_uri(), 0, BEGAN_S + 700
        self.reopen()

    def reopen(self):
        self.rows = CopiedRows(
            "flights",
            storage=self.storage,
            home=join(self.root, "home"),
            capture_uri=join(self.root, "captured"),
            metrics=self.figures,
        )

    def capture(self, digest, *answers, at_s=BEGAN_S + 10):
        """One file. `answers`: what was asked, and what was said."""
        self.num += 1
        hour = f"{datetime.fromtimestamp(at_s, UTC):%Y/%m/%d/%H}"
        uri = join(self.root, "captured", "flights", VARIANTS[digest], hour, f"{self.num:04d}.jsonl")
        lines = [json.dumps(record(asked, {"model_digest": digest} | said, at_s)) for asked, said in answers]
        self.storage.write(uri, "\n".join(lines).encode())

    def read(self, copies=COPIES, *, first=0):
        self.now_s += 31
        return self.rows.read(copies, first=first, epoch=1, now_s=self.now_s)

    def gaps(self):
        return sorted(round(row.difference, 6) if row.difference is not None else None for row in self.read().rows)


def record(asked, said, at_s):
    return {
        "captureData": {
            "endpointInput": {"data": json.dumps(asked), "encoding": "JSON", "mode": "INPUT"},
            "endpointOutput": {"data": json.dumps(said), "encoding": "JSON", "mode": "OUTPUT"},
        },
        "eventMetadata": {"inferenceTime": datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")},
    }


def scored(*scores, **more):
    return {"predictions": list(scores)} | more


@pytest.fixture
def desk(figures, tmp_path):
    return Desk(tmp_path, figures)


def test_answers_to_the_same_request_are_compared_row_by_row(desk):
    desk.capture(OURS, ("x", scored(0.1, 0.2)), ("y", scored(0.9)))
    desk.capture(THEIRS, ("y", scored(0.4)), ("x", scored(0.3, 0.2, slices=[["c=AA"], ["c=UA"]])))
    found = desk.read()
    assert {(round(row.difference, 6), row.slices) for row in found.rows} == {
        (0.2, ("c=AA",)),
        (0.0, ("c=UA",)),
        (-0.5, ()),
    }
    assert (found.candidate, found.control, found.first, found.num_dropped) == (THEIRS, OURS, 0, 0)
    assert found.log_id == f"{THEIRS[:12]}-{BEGAN_S:.0f}"


def test_many_files_are_read_under_signs_of_life(desk):
    heard = []
    desk.rows.on_file = lambda: heard.append(desk.num)
    for number in range(3):
        desk.capture(OURS, (f"x{number}", scored(0.1)))
    desk.read()
    desk.read()
    assert len(heard) == 3


def test_of_equal_requests_as_many_are_compared_as_both_answered(desk):
    desk.capture(OURS, *[("x", scored(0.1))] * 3)
    desk.capture(THEIRS, *[("x", scored(0.3))] * 2)
    assert desk.gaps() == [0.2, 0.2]
    desk.capture(THEIRS, *[("x", scored(0.3))] * 5)
    assert desk.gaps() == [0.2, 0.2, 0.2]


def test_answers_that_come_late_are_compared_then_and_no_row_changes_its_number(desk):
    desk.capture(OURS, ("x", scored(0.1)), ("y", scored(0.2)))
    assert desk.read().rows == ()
    desk.capture(THEIRS, ("y", scored(0.3)))
    first = desk.read().rows
    desk.capture(THEIRS, ("x", scored(0.5)))
    assert desk.read().rows[:1] == first
    assert len(desk.read(first=1).rows) == 1
    assert desk.read(first=9).rows == ()


def test_whoever_reads_next_goes_on_where_the_one_before_stopped(desk):
    desk.capture(OURS, *[("x", scored(0.1))] * 3, ("y", scored(0.5)))
    desk.capture(THEIRS, *[("x", scored(0.2))] * 2)
    before = desk.read()
    desk.reopen()
    desk.capture(THEIRS, ("y", scored(0.9)), ("x", scored(0.2)))
    after = desk.read()
    assert after.rows[: len(before.rows)] == before.rows
    assert [round(row.difference, 6) for row in after.rows[2:]] == [0.4, 0.1]


def test_of_two_readers_at_once_each_row_is_counted_once(desk, figures):
    other = Desk.__new__(Desk)
    other.__dict__.update(desk.__dict__)
    other.reopen()
    desk.read()
    other.read()  # both have begun
    for number in range(4):
        desk.capture(OURS, (f"x{number}", scored(0.1)))
        desk.capture(THEIRS, (f"x{number}", scored(0.2)))
        (desk, other)[number % 2].read()
    assert desk.read().rows == other.read().rows
    assert len(desk.read().rows) == 4


def test_a_chunk_that_another_wrote_in_between_is_taken_over(desk, monkeypatch):
    desk.capture(OURS, ("x", scored(0.1)), ("y", scored(0.1)))
    desk.capture(THEIRS, ("x", scored(0.2)), ("y", scored(0.4)))
    other = Desk.__new__(Desk)
    other.__dict__.update(desk.__dict__)
    other.reopen()
    create, raced = desk.storage.create, []

    def race(uri, data):
        if not raced:
            raced.append(uri)
            other.read()
        return create(uri, data)

    monkeypatch.setattr(desk.storage, "create", race)
    assert desk.gaps() == [0.1, 0.3]
    assert raced


def test_what_only_the_copy_was_not_scored_for_counts_as_no_answer(desk):
    desk.capture(OURS, ("x", scored(0.1, 0.2)), ("y", scored(0.3)))
    desk.capture(THEIRS, ("x", {"failed": 422, "slices": [["c=AA"], ["c=UA"]]}), ("y", scored(0.1, 0.2)))
    found = desk.read()
    assert [row.difference for row in found.rows] == [None] * 3  # two scores for one row are no answer either
    assert {row.slices for row in found.rows} == {("c=AA",), ("c=UA",), ()}


def test_a_copy_that_was_not_tried_is_dropped_and_no_row(desk):
    desk.capture(OURS, ("x", scored(0.1)))
    desk.capture(THEIRS, ("x", {"failed": 503}))
    found = desk.read()
    assert (found.rows, found.num_dropped) == ((), 1)
    desk.reopen()
    assert desk.read().num_dropped == 1


def test_requests_of_which_no_copy_was_made_are_dropped(desk, figures):
    figures.requests = {OURS: 100, THEIRS: 60}
    assert desk.read().num_dropped == 40


def test_what_the_copy_never_answered_counts_beyond_what_failed_for_callers_too(desk, figures):
    figures.errors = {OURS: {0: 2, 60: 1}, THEIRS: {0: 5, 60: 1, 120: 1}}
    assert [row.difference for row in desk.read().rows] == [None] * 4
    desk.reopen()
    figures.errors[THEIRS][180] = 2
    assert [row.difference for row in desk.read().rows] == [None] * 6


def test_nothing_is_counted_before_the_figures_of_its_minute(desk, figures):
    figures.until_s = BEGAN_S + 60
    for at_s in (BEGAN_S + 59, BEGAN_S + 61):
        desk.capture(OURS, ("x", scored(0.1)), at_s=at_s)
        desk.capture(THEIRS, ("x", scored(0.2)), at_s=at_s)
    assert desk.gaps() == [0.1]
    figures.until_s = BEGAN_S + 120
    assert desk.gaps() == [0.1, 0.1]


def test_rows_are_as_old_as_the_figures_beside_them(desk, figures):
    assert desk.read().at_s == desk.now_s
    figures.is_late = True
    assert desk.read().at_s == desk.now_s - 1000


@pytest.mark.parametrize(
    "said",
    [scored(0.1, is_probe=True), scored(0.1, model_digest="c" * 64), {"instances": []}, "text", {"predictions": 3}],
)
def test_probes_and_strangers_are_left_out(desk, said):
    desk.capture(OURS, ("x", scored(0.1)))
    record_said = said if isinstance(said, dict) else {}
    desk.capture(THEIRS, ("x", record_said))
    assert desk.read().rows == ()


def test_what_was_asked_before_the_copies_began_is_left_out(desk):
    desk.capture(OURS, ("x", scored(0.1)), at_s=BEGAN_S - 5)
    desk.capture(THEIRS, ("x", scored(0.2)))
    assert desk.read().rows == ()


def test_ended_copies_keep_their_rows_and_new_ones_begin_anew(desk):
    desk.capture(OURS, ("x", scored(0.1)))
    desk.capture(THEIRS, ("x", scored(0.2)))
    desk.read()
    desk.reopen()
    ended = dataclasses.replace(COPIES, giving=Giving.ENDED)
    assert len(desk.read(ended).rows) == 1
    assert desk.read(ended).at_s == desk.now_s
    ordered = dataclasses.replace(COPIES, giving=Giving.ORDERED, since_s=0.0)
    assert (desk.read(ordered).log_id, desk.read(ordered).rows) == ("", ())
