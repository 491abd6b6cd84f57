"""A driver killed at every point of every strategy, then run again: always full success or full rollback.

Points are recorded from an undisturbed run, the first visit of each at every share, so a new one is killed as soon as
it exists.
"""

import pytest

from clearway.contracts.release_document import Outcome, Phase
from clearway.contracts.verdict import Verdict
from clearway.deploy.run import deploy
from clearway.deploy.strategies import begin
from clearway.infra.environment import Environment
from rollout_kit import PLAN, SHADOWED, TESTED, WATCHED, Killed, Street, spoil
from serving_kit import PRODUCT, InProcessEndpoint, approved, controls_of, make_package

STRATEGIES = {
    "canary": {},
    "canary, then watch": WATCHED,
    "all at once, then watch": {**WATCHED, "strategy": ("blue_green", "watch")},
    "shadow, then canary": SHADOWED,
    "A/B test": TESTED,
}
# Shares and callers that give each step its requests in the time it takes at least.
STEPS_PCT, PER_S = (40.0, 70.0, 100.0), 30
# Seconds of callers after which a bad candidate turns bad: it has some by then, at whatever share.
TURNS_BAD_AFTER = 2


class Story:
    """A champion in service, and a candidate to release on a machine of its own."""

    def __init__(self, home, plan, monkeypatch, *, is_bad):
        variables = {"CLEARWAY__HOME": str(home), "CLEARWAY__STORAGE__ROOT": (home / "store").as_uri()}
        self.env, self.plan = Environment.load(variables), PLAN.model_copy(update={"steps_pct": STEPS_PCT, **plan})
        self.endpoint = InProcessEndpoint(self.env)
        self.street = Street(self.endpoint, per_s=PER_S)
        self.controls = controls_of(self.env, self.endpoint, clock=self.street, lease_ttl_s=6.0)
        self.champion, self.candidate = make_package(self.env, 0.1), make_package(self.env, 0.2)
        self.street.outcomes = {self.champion.digest: 0.2, self.candidate.digest: 0.7}
        self.release(self.champion, "r1")
        if is_bad:
            self.street.happenings.update(dict.fromkeys(range(1, 200), lambda: self._break(monkeypatch)))

    def _break(self, monkeypatch):
        is_reached = self.street.answered.count(self.candidate.digest) > 0
        if is_reached and self.street.slept >= TURNS_BAD_AFTER:
            self.street.happenings.clear()
            spoil(self.street, monkeypatch, self.candidate.digest, share_failing=0.6)

    def release(self, ref, release_id):
        inputs = approved(self.env, ref, release_id)
        return deploy(inputs, controls=self.controls, project=lambda _: None, rollout=begin(self.plan))

    def document(self):
        return self.controls.store.read(PRODUCT)[0]

    def play(self, monkeypatch, *, victim=None):
        """Release the candidate, killed at the first visit of `victim`; the visits as (point, share at the time)."""
        visits = []

        def visit(name):
            visits.append((name, self.document().weight_pct))
            if visits[-1] == victim:
                raise Killed

        with monkeypatch.context() as patch:
            for module in ("drive", "run"):
                patch.setattr(f"clearway.deploy.{module}.fault", visit)
            try:
                self.release(self.candidate, "r2")
            except Killed:
                assert victim is not None
        return visits


@pytest.mark.slow
@pytest.mark.parametrize("is_bad", [False, True], ids=["good", "bad"])
@pytest.mark.parametrize("plan", STRATEGIES.values(), ids=STRATEGIES)
def test_a_kill_at_any_point_ends_in_full_success_or_full_rollback(tmp_path, monkeypatch, plan, is_bad):
    calm = Story(tmp_path / "undisturbed", plan, monkeypatch, is_bad=is_bad)
    victims = dict.fromkeys(calm.play(monkeypatch))
    calm.endpoint.close()
    assert len(victims) >= 18
    for number, victim in enumerate(victims):
        story = Story(tmp_path / str(number), plan, monkeypatch, is_bad=is_bad)
        assert victim in story.play(monkeypatch, victim=victim)
        outputs = story.release(story.candidate, "r2")
        document, wanted = story.document(), story.champion if is_bad else story.candidate
        assert outputs.verdict is (Verdict.FAIL if is_bad else Verdict.PASS), (victim, outputs.reason)
        assert (document.phase, document.champion.digest, document.lease) == (Phase.IDLE, wanted.digest, None)
        assert [e.outcome for e in document.history[1:]] == [Outcome.ABORTED if is_bad else Outcome.PROMOTED]
        assert story.endpoint.state().weights_pct == {wanted.digest: 100.0}
        assert story.endpoint.state().loaded == tuple(
            sorted({wanted.digest} | ({story.champion.digest} if not is_bad else set()))
        )
        story.endpoint.close()
