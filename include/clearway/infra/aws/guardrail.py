"""SageMaker's own way from one endpoint configuration to another, and when it would not keep to it.

Where a configuration has a feature that its guardrails do not know, SageMaker moves the endpoint all at once, watches
no alarm and says nothing. So what it would ignore is refused before it is asked.
"""

from collections.abc import Collection, Mapping
from typing import Any

from clearway.contracts.errors import ConfigError
from clearway.infra.aws.client import client, complete, explained
from clearway.infra.environment import SageMaker

# "Exclusions" in SageMaker's guide to deployment guardrails: on these they are left out without a word.
UNGUARDED_INSTANCES = ("ml.inf1.", "ml.eia")
MAX_ALARMS = 10
MAX_CANARY_PCT = 50
# Champion, way back and candidate. All three are always there, because both configurations must name the same variants.
NUM_VARIANTS = 3
_ROUTES = {"all_at_once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR"}
_LEAST_TIMEOUT_S, _MOST_TIMEOUT_S = 600, 28_800


def deployment_config(settings: SageMaker) -> dict[str, Any]:
    """The DeploymentConfig of an UpdateEndpoint call; empty without `shifting`."""
    if not settings.shifting:
        return {}
    routing: dict[str, Any] = {"Type": _ROUTES[settings.shifting], "WaitIntervalInSeconds": settings.bake_s}
    size = {"Type": "CAPACITY_PERCENT", "Value": settings.shift_pct}
    if settings.shifting == "canary":
        routing["CanarySize"] = size
    if settings.shifting == "linear":
        routing["LinearStepSize"] = size
    return {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": settings.bake_s,
            "MaximumExecutionTimeoutInSeconds": min(
                _MOST_TIMEOUT_S, max(_LEAST_TIMEOUT_S, int(settings.update_timeout_s))
            ),
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in settings.alarms.split()]},
    }


def check(settings: SageMaker, *, before: Collection[str], after: Collection[str]) -> None:
    """Preflight of one update between variants of these names. Raises: ConfigError with all that is wrong."""
    if not settings.shifting:
        if settings.alarms.split():
            raise ConfigError(
                f"sagemaker.alarms is {settings.alarms!r} and sagemaker.shifting is empty: SageMaker would watch none "
                "of them; set shifting to all_at_once, canary or linear"
            )
        return
    found = [*_problems(settings, before=before, after=after), *_alarm_problems(settings.alarms.split())]
    if found:
        raise ConfigError(
            f"SageMaker would not shift {settings.shifting!r} as asked: {'; '.join(found)}; correct section sagemaker, "
            "or leave sagemaker.shifting and sagemaker.alarms empty"
        )


def _problems(settings: SageMaker, *, before: Collection[str], after: Collection[str]) -> list[str]:
    found = []
    if settings.instance.startswith(UNGUARDED_INSTANCES):
        found.append(f"instance {settings.instance!r} has no guardrails, traffic would move all at once and unwatched")
    if set(before) != set(after):
        names = f"{sorted(before)} now, {sorted(after)} then"
        found.append(f"variants change their names ({names}), for which guardrails do not hold")
    if settings.shifting != "all_at_once":
        if settings.instance_count < 2:  # noqa: PLR2004 - a part of one instance is none
            found.append(f"instance_count is {settings.instance_count}, a part of it needs at least 2")
        if settings.shift_pct > MAX_CANARY_PCT:
            found.append(f"shift_pct is {settings.shift_pct}, at most {MAX_CANARY_PCT} are allowed")
    num_shifts = {"all_at_once": 1, "canary": 2, "linear": -(-100 // settings.shift_pct)}[settings.shifting]
    waits_s = settings.bake_s * (num_shifts + 1)
    if waits_s >= settings.update_timeout_s:
        found.append(f"waits of {waits_s} s do not fit into update_timeout_s, {settings.update_timeout_s:g}")
    return found


def _alarm_problems(names: list[str]) -> list[str]:
    if not 1 <= len(names) <= MAX_ALARMS:
        return [f"{len(names)} alarms are named, 1 to {MAX_ALARMS} are needed to take a bad update back"]
    with explained(f"alarms {' '.join(names)}"):
        asked = {"AlarmNames": names, "AlarmTypes": ["MetricAlarm"]}
        alarms = complete(client("cloudwatch").describe_alarms, "MetricAlarms", **asked)["MetricAlarms"]
    known = {alarm["AlarmName"]: alarm for alarm in alarms}
    return [text for name in names if (text := _alarm_problem(name, known.get(name)))]


def _alarm_problem(name: str, alarm: Mapping[str, Any] | None) -> str:
    if alarm is None:
        return f"alarm {name!r} does not exist"
    if alarm.get("StateValue") != "OK":
        return f"alarm {name!r} is {alarm.get('StateValue')}, not OK"
    if alarm.get("TreatMissingData", "missing") == "missing":
        return f"alarm {name!r} keeps its state when data are missing; set its TreatMissingData, e.g. to breaching"
    return ""
