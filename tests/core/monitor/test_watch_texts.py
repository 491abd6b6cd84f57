"""From a package to live traffic, to the monitor, to a decision: a product whose model reads texts."""

import json
from collections.abc import Iterator

import pytest

from clearway.contracts.errors import Unavailable
from clearway.contracts.verdict import Verdict
from clearway.infra.environment import Environment
from clearway.infra.release_store import open_release_store
from clearway.kinds.scorers import open_scorer
from clearway.measures.surprise import HELD_OUT, HeldOut
from clearway.monitor.prediction_log import read_predictions
from clearway.packaging.text import beginning
from clearway.serve.sending import sending_for
from language_kit import STORAGE, make_world
from reader_kit import NUM_TEXTS, POLICY, QUARTERS, Library, cut, marked_up, repeated, shuffled
from serving_kit import InProcessEndpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """A product whose champion has learned to spell, and answers."""
    home = tmp_path_factory.mktemp("library")
    env = Environment.load({"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()})
    world = make_world(env, monitor=POLICY)
    endpoint = InProcessEndpoint(env, product="api_docs")
    library = Library(world=world, endpoint=endpoint)
    library.serve(world.package(home / "job", num_epochs=7))
    yield library
    endpoint.close()


@pytest.fixture
def shelf(live: Library) -> Library:
    """The same with nothing watched yet."""
    for folder in ("monitor", "decisions", "predictions"):
        STORAGE.delete_tree(live.world.layout._at(folder))
    return live


@pytest.fixture
def library(shelf: Library, monkeypatch: pytest.MonkeyPatch) -> Library:
    """With pages that leave Evidently out: it draws the same columns for every kind of model, in a second each."""
    monkeypatch.setattr("clearway.monitor.report.drift_page", lambda *_, **__: "<html><body></body></html>")
    return shelf


def test_a_quiet_batch_is_read_judged_at_once_and_holds(shelf: Library) -> None:
    library = shelf
    first, second = (library.watch(quarter, library.texts(quarter)) for quarter in QUARTERS[:2])
    assert (first.verdict, first.retrain) == (Verdict.PASS, False), first.reason
    assert (second.verdict, second.retrain) == (Verdict.PASS, False), second.reason
    part = library.summary(QUARTERS[0])["surprise"]
    assert (part["num_documents"], part["num_judged"], part["num_empty"], part["num_unanswered"]) == (96, 96, 0, 0)
    found = part["measured"]
    assert found["lower"] < found["bits_per_byte"] < found["upper"]
    assert abs(found["bits_per_byte"] - found["held_bits_per_byte"]) < found["limit"]
    assert (found["block"], found["num_blocks"], found["num_held_blocks"]) == ("service", 8, 8)
    carried = library.summary(QUARTERS[1])["carried"]
    assert (carried["num_batches"], carried["num_new_rows"], carried["num_unlabelled"]) == (2, 2 * NUM_TEXTS, 0)
    assert library.summary(QUARTERS[0])["performance"] is None
    page = STORAGE.read(first.report_uri).decode()
    assert page.index("What the texts cost") < page.index("window.drawDashboard(")
    assert "performance is unknown" not in page


def test_texts_in_another_order_cost_more_and_ask_for_a_retraining(library: Library) -> None:
    """No count of bytes sees it and no label ever comes."""
    quiet = library.watch(QUARTERS[0], library.texts(QUARTERS[0]))
    outputs = [library.watch(quarter, library.texts(quarter, shuffled)) for quarter in QUARTERS[1:4]]
    assert [o.verdict for o in (quiet, *outputs)] == [Verdict.PASS, *[Verdict.FAIL] * 3]
    # 2 of 3 windows, then the cool-down
    assert [o.retrain for o in (quiet, *outputs)] == [False, False, True, False], outputs[1].reason
    stored = json.loads(STORAGE.read(library.world.layout.decision(outputs[1].evidence_digest)))
    assert (stored["signals"], stored["as_of"]) == (["surprise"], "2025-04-01T00:00:00Z")
    drift = library.summary(QUARTERS[2])["drift"]
    (tokens,) = [f for f in drift["features"] if f["name"] == "text"]
    assert (tokens["kind"], tokens["is_over"], drift["share_over"]) == ("text", False, 0.0)


def test_other_markup_is_held_for_a_person(library: Library) -> None:
    library.watch(QUARTERS[0], library.texts(QUARTERS[0]))
    outputs = [library.watch(quarter, library.texts(quarter, marked_up)) for quarter in QUARTERS[1:3]]
    assert not any(o.retrain for o in outputs)
    assert all("held for a person" in o.reason for o in outputs)
    assert [library.summary(quarter)["carried"]["sudden"] for quarter in QUARTERS[1:3]] == [["num_bytes", "text"]] * 2


def test_texts_that_were_cut_are_held_for_a_person(library: Library) -> None:
    """What is left of them is read at about the usual cost."""
    library.watch(QUARTERS[0], library.texts(QUARTERS[0]))
    assert library.summary(QUARTERS[0])["length"]["num_longest"] < 10
    outputs = [library.watch(quarter, library.texts(quarter, cut)) for quarter in QUARTERS[1:3]]
    assert [(o.verdict, o.retrain) for o in outputs] == [(Verdict.INCONCLUSIVE, False)] * 2
    assert all("texts end at 45 bytes, where the longest does, of held-out ones" in o.reason for o in outputs)
    page = STORAGE.read(outputs[0].report_uri).decode()
    assert "How long the texts are" in page


def test_texts_run_together_are_told_by_their_length(library: Library) -> None:
    quiet = library.watch(QUARTERS[0], library.texts(QUARTERS[0]))
    joined = library.watch(QUARTERS[1], library.texts(QUARTERS[1], repeated))
    assert (quiet.verdict, joined.verdict) == (Verdict.PASS, Verdict.FAIL), joined.reason
    found = library.summary(QUARTERS[1])["length"]
    assert found["doublings"] == pytest.approx(1.0, abs=0.1)
    assert found["doublings"] > found["limit"]
    assert (found["num_blocks"], found["num_held_blocks"]) == (8, 8)
    assert "doublings away from held-out texts of 8 blocks" in joined.reason


def test_texts_that_go_missing_are_an_outage_and_never_drift(library: Library) -> None:
    library.watch(QUARTERS[0], library.texts(QUARTERS[0]))
    for quarter in QUARTERS[1:3]:
        texts = [text if i % 2 else "" for i, text in enumerate(library.texts(quarter, shuffled))]
        outputs = library.watch(quarter, texts)
        assert (outputs.verdict, outputs.retrain) == (Verdict.INCONCLUSIVE, False)
        assert "48 of 96 texts are empty, in training 0.0% were" in outputs.reason
    assert library.summary(QUARTERS[2])["surprise"]["num_judged"] == 48


def test_a_batch_of_nothing_but_empty_texts_is_scored_by_nobody_and_told(library: Library) -> None:
    dataset = library.land(QUARTERS[0], [""] * NUM_TEXTS)
    scored = library.score(QUARTERS[0], dataset)
    assert (scored.num_rows, scored.num_sent, scored.digest) == (0, 0, "")
    outputs = library.watch(QUARTERS[0], [""] * NUM_TEXTS, is_scored=False)
    assert (outputs.verdict, outputs.retrain) == (Verdict.INCONCLUSIVE, False)
    assert "96 of 96 texts are empty" in outputs.reason


def test_unanswered_texts_say_nothing_about_the_champion(library: Library) -> None:
    outputs = library.watch(QUARTERS[0], library.texts(QUARTERS[0], shuffled), is_scored=False)
    part = library.summary(QUARTERS[0])["surprise"]
    assert (part["num_unanswered"], part["measured"]) == (96, None)
    assert "answered for 0 texts, at least 50 are needed" in part["reason"]
    assert not outputs.retrain


def test_a_long_text_is_asked_about_and_counted_by_its_beginning(library: Library) -> None:
    world = library.world
    champion = open_release_store(world.env).read("api_docs")[0].champion
    assert champion is not None
    package = world.open(champion)
    texts = library.texts(QUARTERS[0])
    texts[3] = " ".join(library.texts(QUARTERS[1]))[:900]
    library.watch(QUARTERS[0], texts)
    part = library.summary(QUARTERS[0])["surprise"]
    sent = [beginning(text, 400) for text in texts]
    assert (part["num_cut"], part["num_bytes"]) == (1, sum(len(text.encode()) for text in sent))
    log = read_predictions(STORAGE, world.layout, [QUARTERS[0]])
    answered = dict(zip(log["key"].to_pylist(), log["score"].to_pylist(), strict=True))
    scores = open_scorer(package).score(sent)
    assert [answered[f"{QUARTERS[0]}/{i}"] for i in range(NUM_TEXTS)] == scores.tolist()
    bits = sum(score * len(text.encode()) for score, text in zip(scores, sent, strict=True))
    assert part["measured"]["bits_per_byte"] == pytest.approx(bits / part["num_bytes"])


def test_the_package_says_what_held_out_texts_cost(library: Library) -> None:
    champion = open_release_store(library.world.env).read("api_docs")[0].champion
    assert champion is not None
    package = library.world.open(champion)
    held = HeldOut.from_json(package.reference[HELD_OUT])
    assert len(held.bits) == 8
    assert package.reference[HELD_OUT]["share_empty"] == 0.0
    assert 0.5 < held.bits_per_byte < 5.0  # a guess among bytes needs 8
    counts = package.reference["features"]["text"]["counts"]
    assert (len(counts), sum(counts)) == (257, pytest.approx(160))  # a row per text


def test_without_a_champion_nobody_is_asked(env: Environment) -> None:
    with pytest.raises(Unavailable, match="no model of 'api_docs' serves"):
        sending_for(make_world(env).product, env)
