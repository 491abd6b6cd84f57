"""What SageMaker would silently do all at once is refused before it is asked."""

import pytest

from clearway.contracts.errors import ConfigError
from clearway.infra.aws import guardrail
from clearway.infra.clock import FakeClock
from sagemaker_account import Fate
from sagemaker_kit import PLAN, SETTINGS, at_sagemaker, hurry, opened_account
from sagemaker_story_kit import told

NAMES = ("variant-1", "variant-2", "variant-3")
GUARDED = {"shifting": "canary", "alarms": "errors-1 latency-1", "instance_count": 4, "bake_s": 100}


@pytest.fixture
def check(env, tmp_path):
    """Preflight of one update in an account with two alarms in order."""
    with opened_account(at_sagemaker(env), FakeClock(1e9), home=tmp_path) as (account, _):
        account.put_alarm("errors-1")
        account.put_alarm("latency-1")

        def run(*, before=NAMES, after=NAMES, **changes):
            settings = SETTINGS.model_copy(update={**GUARDED, **changes})
            guardrail.check(settings, before=before, after=after)

        run.account = account
        yield run


@pytest.mark.parametrize("shifting", ["all_at_once", "canary", "linear"])
def test_a_configuration_that_guardrails_hold_for_is_taken(check, shifting):
    check(shifting=shifting, shift_pct=50)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"instance": "ml.inf1.xlarge"}, "has no guardrails"),
        ({"instance": "ml.eia2.medium"}, "has no guardrails"),
        ({"after": NAMES[:2]}, "change their names"),
        ({"after": ("other", *NAMES[1:])}, "change their names"),
        ({"instance_count": 1}, "at least 2"),
        ({"shift_pct": 51}, "at most 50"),
        ({"bake_s": 200}, "do not fit"),
        ({"alarms": ""}, "0 alarms"),
        ({"alarms": " ".join(f"a{i}" for i in range(11))}, "11 alarms"),
        ({"alarms": "errors-1 nobody"}, "'nobody' does not exist"),
    ],
    ids=str,
)
def test_what_would_fall_back_silently_is_refused(check, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        check(**changes)


@pytest.mark.parametrize(
    ("state", "missing", "reason"),
    [
        ("ALARM", "breaching", "is ALARM"),
        ("INSUFFICIENT_DATA", "breaching", "is INSUFFICIENT_DATA"),
        ("OK", "missing", "when data are missing"),
    ],
)
def test_an_alarm_that_cannot_speak_is_refused(check, state, missing, reason):
    check.account.put_alarm("errors-1", state=state, missing=missing)
    with pytest.raises(ConfigError, match=reason):
        check()


def test_alarms_that_nobody_would_watch_are_refused():
    with pytest.raises(ConfigError, match="watch none"):
        guardrail.check(SETTINGS.model_copy(update={"alarms": "errors-1"}), before=NAMES, after=NAMES)


@pytest.mark.slow
def test_guarded_updates_keep_their_variants_and_an_alarm_takes_them_back(env, tmp_path, monkeypatch):
    hurry(monkeypatch)
    plan = PLAN.model_copy(update={"strategy": "blue_green"})
    with told(env, tmp_path / "containers", first=False, **GUARDED) as story:
        story.account.put_alarm("errors-1")
        story.account.put_alarm("latency-1")
        story.begin()
        assert story.release(0.2, "r2", plan).verdict.value == "pass"
        fates = [Fate("told")]
        story.account.next_fate = lambda: fates.pop() if fates else Fate()
        outputs = story.release(0.3, "r3", plan)
        assert outputs.verdict.value == "fail"
        assert "Alarm went off" in outputs.reason
        updates = [asked for name, asked in story.account.asked if name == "UpdateEndpoint"]
        assert len(updates) == 2
        assert all("DeploymentConfig" in asked for asked in updates)
        assert story.account.unguarded == []
        assert story.account.misfits == []
