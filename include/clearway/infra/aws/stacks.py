"""What an account needs, as CloudFormation stacks made from the templates of include/aws.

A template takes its parameters from the outputs of the stacks before it, by name, and from what a person set. An output
whose description is the name of a variable says what that variable must be: together they are the settings of `aws`.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.infra.aws.client import client, code_of, complete, explained
from clearway.infra.clock import Clock
from clearway.infra.environment import PREFIX, project_root

log = logging.getLogger("clearway.aws")

# Each may use what those before it put out; taken down from the end.
ORDER = ("network", "storage", "state", "images", "spark", "watch", "roles", "batch")
OPTIONS = ("emr", "nodes", "pods", "mwaa")  # made after those if asked for, and kept up to date from then on
POLL_S = 5.0
TIMEOUT_S = 3600.0
CORRECT = "correct what it names, then run it again"
# A stack that was never there: nothing can be made of it but to delete it and begin again.
_STILLBORN = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "REVIEW_IN_PROGRESS"})
_MAX_REASONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One file of include/aws. `slots`: its parameters; `defaults`: values of those it knows one for."""

    name: str
    text: str
    slots: frozenset[str]
    defaults: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack as CloudFormation describes it. `settings`: outputs by the variables they are for."""

    status: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    outputs: Mapping[str, str]
    settings: Mapping[str, str]


def folder() -> Path:
    """Where the templates lie."""
    return project_root() / "include" / "aws"


def template(name: str) -> Template:
    """Read one. No tags of CloudFormation's are used in them, so any YAML reader can."""
    text = (folder() / f"{name}.yaml").read_text(encoding="utf-8")
    slots = yaml.safe_load(text).get("Parameters", {})
    defaults = {slot: str(about["Default"]) for slot, about in slots.items() if "Default" in about}
    return Template(name=name, text=text, slots=frozenset(slots), defaults=defaults)


class Stacks:
    """All stacks of one installation, named `<name>-<template>`."""

    def __init__(self, name: str, *, clock: Clock, order: tuple[str, ...] = (*ORDER, *OPTIONS)) -> None:
        self._name, self._clock, self._order = name, clock, order

    def stack_of(self, part: str) -> str:
        """Name of the stack of one template."""
        return f"{self._name}-{part}"

    def up(
        self, given: Mapping[str, str], *, tags: Mapping[str, str], wanted: Collection[str] = ()
    ) -> Iterator[tuple[str, Stack]]:
        """Make each stack what its template says, and hand it out; one that is so already stays as it is.

        Args:
            given: parameters, over those that a stack has already and the templates' own defaults.
            tags: put on every stack, and through it on all in it that takes tags.
            wanted: options to make; those that stand already need not be named again.
        Raises: ConfigError for an unknown parameter, before anything is made, or with CloudFormation's reasons.
        """
        parts = [part for part in self._order if part not in OPTIONS or part in wanted or self.look(part)]
        templates = [template(part) for part in parts]
        known = {slot for found in templates for slot in found.slots}
        if unknown := sorted(set(given) - known):
            raise ConfigError(f"parameters {unknown} are in no template of include/aws; allowed: {sorted(known)}")
        have = {"Name": self._name, **given}
        for found in templates:
            there = self.look(found.name)
            values = {**found.defaults, **(there.parameters if there else {}), **have}
            if missing := sorted(found.slots - set(values)):
                raise ConfigError(f"include/aws/{found.name}.yaml needs {missing}; give them as --set NAME=VALUE")
            stack = self._made(found, {slot: values[slot] for slot in sorted(found.slots)}, tags)
            have = {**stack.outputs, **have}
            yield found.name, stack

    def look(self, part: str) -> Stack | None:
        """The stack of one template; None if there is none."""
        found = self._described(self.stack_of(part))
        return None if found is None else _stack(found)

    def down(self) -> Iterator[str]:
        """Delete all stacks, last first; hands out the names of those that are gone."""
        for part in reversed(self._order):
            name = self.stack_of(part)
            if self._described(name) is None:
                continue
            self._delete(name)
            yield part

    def _made(self, found: Template, parameters: Mapping[str, str], tags: Mapping[str, str]) -> Stack:
        name = self.stack_of(found.name)
        there = self._settled(name)
        if there is not None and there["StackStatus"] in _STILLBORN:
            log.info("%s: was never finished (%s), begins again", name, there["StackStatus"])
            self._delete(name)
            there = None
        asked = {
            "StackName": name,
            "TemplateBody": found.text,
            "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
            "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
        }
        seen = {event["EventId"] for event in self._events(name)} if there else set()
        if self._ordered(name, asked, is_new=there is None):
            there = self._settled(name, seen=seen)
            wanted = "CREATE_COMPLETE" if not seen else "UPDATE_COMPLETE"
            if there is None or there["StackStatus"] != wanted:
                self._give_up(name, there, seen)
        else:
            log.info("%s: is as its template says", name)
        if there is None:
            raise Unavailable(f"stack {name} vanished while it was looked at; run the command again")
        return _stack(there)

    def _ordered(self, name: str, asked: dict[str, Any], *, is_new: bool) -> bool:
        """Whether there is something to wait for."""
        formation = client("cloudformation")
        try:
            with explained(f"stack {name}", refused=CORRECT):
                (formation.create_stack if is_new else formation.update_stack)(**asked)
        except ConfigError as error:
            if "No updates are to be performed" in str(error):
                return False
            raise
        return True

    def _settled(self, name: str, *, seen: set[str] | None = None) -> dict[str, Any] | None:
        """The stack once nothing moves in it; its events are logged as they come, but for those that were seen."""
        deadline_s, told = self._clock.now_s() + TIMEOUT_S, set(seen or ())
        while True:
            there = self._described(name)
            if seen is not None and there is not None:
                for event in self._events(name):
                    if event["EventId"] not in told:
                        told.add(event["EventId"])
                        log.info("%s: %s %s", name, event["LogicalResourceId"], event["ResourceStatus"])
            if there is None or not there["StackStatus"].endswith("_IN_PROGRESS"):
                return there
            if there["StackStatus"] == "REVIEW_IN_PROGRESS":  # a change set nobody carried out; waits for ever
                return there
            if self._clock.now_s() >= deadline_s:
                raise Unavailable(f"stack {name} is {there['StackStatus']} for {TIMEOUT_S:g} s; look at its events")
            self._clock.sleep(POLL_S)

    def _give_up(self, name: str, there: Mapping[str, Any] | None, seen: set[str]) -> None:
        failed = [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'no reason given')}"
            for event in reversed(self._events(name) if there else [])
            if event["ResourceStatus"].endswith("_FAILED") and event["EventId"] not in seen
        ]
        status = there["StackStatus"] if there else "gone"
        raise ConfigError(
            f"stack {name} is {status}: {'; '.join(failed[:_MAX_REASONS]) or 'no reason given'}; correct the cause and "
            "run the command again, which begins where this one stopped"
        )

    def _delete(self, name: str) -> None:
        with explained(f"stack {name}", refused=CORRECT):
            client("cloudformation").delete_stack(StackName=name)
        log.info("%s: goes", name)
        if (there := self._settled(name)) is not None:
            self._give_up(name, there, set())

    def _events(self, name: str) -> list[dict[str, Any]]:
        """The newest hundred, oldest first."""
        with explained(f"stack {name}"):
            events = complete(client("cloudformation").describe_stack_events, "StackEvents", StackName=name)
        return list(reversed(events["StackEvents"]))

    def _described(self, name: str) -> dict[str, Any] | None:
        from botocore import exceptions as botocore  # noqa: PLC0415

        with explained(f"stack {name}"):
            try:
                found: dict[str, Any] = client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
            except botocore.ClientError as error:
                if code_of(error) == "ValidationError" and "does not exist" in str(error):
                    return None
                raise
        return None if found["StackStatus"] == "DELETE_COMPLETE" else found


def _stack(found: Mapping[str, Any]) -> Stack:
    outputs = found.get("Outputs", ())
    return Stack(
        status=found["StackStatus"],
        parameters={slot["ParameterKey"]: slot["ParameterValue"] for slot in found.get("Parameters", ())},
        tags={tag["Key"]: tag["Value"] for tag in found.get("Tags", ())},
        outputs={output["OutputKey"]: output["OutputValue"] for output in outputs},
        settings={
            output["Description"]: output["OutputValue"]
            for output in outputs
            if output.get("Description", "").startswith(PREFIX)
        },
    )
