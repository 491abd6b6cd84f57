"""Clearway in an account: its stacks, and what no template can hold."""

import logging
import secrets
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from clearway.contracts.errors import ConfigError, Unavailable
from clearway.infra.aws.client import client, code_of, complete, explained
from clearway.infra.aws.stacks import OPTIONS, ORDER, POLL_S, Stacks, folder
from clearway.infra.clock import Clock
from clearway.infra.environment import PREFIX

log = logging.getLogger("clearway.aws")

KEY_BYTES = 32
JOB_FILE = "clearway_job.py"
DEFAULT_TAGS = {"team": "clearway", "product": "all", "environment": "production"}
_PARTITIONS = ("aws", "aws-cn", "aws-us-gov")
_DELETED_AT_ONCE = 1000
_MAX_STOP_S = 600.0


class Installation:
    """All that `name` stands for in the account and region that every AWS tool would use."""

    def __init__(self, name: str, *, clock: Clock, order: tuple[str, ...] = (*ORDER, *OPTIONS)) -> None:
        self._stacks, self._clock, self._first = Stacks(name, clock=clock, order=order), clock, order[0]

    def up(self, given: Mapping[str, str], *, tags: Mapping[str, str], wanted: Collection[str] = ()) -> dict[str, str]:
        """Make or update everything, `wanted` options too; the variables that Clearway needs to use it. Safe to repeat.

        Options, parameters and tags that are not given stay as they are.
        Raises: ConfigError; Unavailable.
        """
        check_region()
        settings, first = {"CLEARWAY_ENV": "aws"}, self._stacks.look(self._first)
        tags = DEFAULT_TAGS | (dict(first.tags) if first else {}) | dict(tags)
        for part, stack in self._stacks.up(given, tags=tags, wanted=wanted):
            settings |= stack.settings
            if part == "storage":
                self._bring_job_file(stack.outputs["Bucket"])
            if part == "state":
                _fill(stack.outputs["SecretArn"])
        return settings | {f"{PREFIX}AWS__TAGS__{name.upper()}": value for name, value in tags.items()}

    def down(self, *, with_data: bool) -> list[str]:
        """Remove everything; the parts that are gone. Raises: ConfigError, with nothing removed, if data would go."""
        check_region()
        bucket, table, application = (self._output(*place) for place in _PLACES)
        if not with_data:
            held = [*_objects_in(bucket), *_documents_in(table)]
            if held:
                raise ConfigError(
                    f"{' and '.join(held)}; nothing was removed. Copy what is to stay, then run it with --with-data"
                )
        if application:
            self._stop(application)
        if table:
            _unprotect(table)
        if bucket:
            _empty(bucket)
        return list(self._stacks.down())

    def _output(self, part: str, name: str) -> str:
        stack = self._stacks.look(part)
        return stack.outputs.get(name, "") if stack else ""

    def _bring_job_file(self, bucket: str) -> None:
        with explained(f"bucket {bucket}"):
            body = (folder() / JOB_FILE).read_bytes()
            client("s3").put_object(Bucket=bucket, Key=f"code/{JOB_FILE}", Body=body)

    def _stop(self, application: str) -> None:
        """An application that runs cannot be deleted."""
        emr, deadline_s = client("emr-serverless"), self._clock.now_s() + _MAX_STOP_S
        with explained(f"EMR application {application}"):
            emr.stop_application(applicationId=application)
            while True:
                found = complete(emr.get_application, "application", applicationId=application)["application"]
                if found["state"] not in {"STARTED", "STARTING", "STOPPING"}:
                    return
                if self._clock.now_s() >= deadline_s:
                    raise Unavailable(f"EMR application {application} is {found['state']}; stop its jobs, then again")
                self._clock.sleep(POLL_S)


# What holds data or must rest before it goes: part and output.
_PLACES = (("storage", "Bucket"), ("state", "Table"), ("spark", "Application"))


def check_region() -> None:
    """Raises: ConfigError unless the region is one that AWS has, and the credentials are somebody's."""
    import boto3

    with explained("who calls"):
        session = boto3.session.Session()
        regions = [region for part in _PARTITIONS for region in session.get_available_regions("cloudformation", part)]
        if session.region_name not in regions:
            raise ConfigError(
                f"region {session.region_name!r} is not one of AWS; allowed: {', '.join(sorted(regions))}; set "
                "AWS_DEFAULT_REGION, or the region of AWS_PROFILE"
            )
        who = complete(client("sts").get_caller_identity, "Arn")
    log.info("as %s, in %s", who["Arn"], session.region_name)


def _fill(secret: str) -> None:
    """Give a secret that is still empty its key; one that has a key keeps it."""
    from botocore import exceptions as botocore  # noqa: PLC0415

    manager = client("secretsmanager")
    with explained(f"secret {secret}"):
        try:
            manager.get_secret_value(SecretId=secret)
        except botocore.ClientError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            manager.put_secret_value(SecretId=secret, SecretBinary=secrets.token_bytes(KEY_BYTES))
            log.info("the signing key is made")


def _objects_in(bucket: str) -> Iterator[str]:
    """The job file that `up` brings does not count."""
    if not bucket:
        return
    keys = (str(version["Key"]) for page in _versions(bucket) for version in page)
    if key := next((key for key in keys if key != f"code/{JOB_FILE}"), ""):
        yield f"bucket {bucket} holds objects or versions of them, {key} among them"


def _documents_in(table: str) -> Iterator[str]:
    if table:
        with explained(f"table {table}"):
            found = complete(client("dynamodb").scan, "Count", TableName=table, Limit=1)
        if found["Count"]:
            yield f"table {table} holds release documents"


def _unprotect(table: str) -> None:
    with explained(f"table {table}"):
        client("dynamodb").update_table(TableName=table, DeletionProtectionEnabled=False)


def _empty(bucket: str) -> None:
    """Every version, and every mark of a deletion."""
    with explained(f"bucket {bucket}"):
        for page in _versions(bucket):
            for start in range(0, len(page), _DELETED_AT_ONCE):
                some = page[start : start + _DELETED_AT_ONCE]
                answer = client("s3").delete_objects(Bucket=bucket, Delete={"Objects": some, "Quiet": True})
                if answer.get("Errors"):
                    raise Unavailable(f"bucket {bucket} keeps {answer['Errors'][0]}; run the command again")


def _versions(bucket: str) -> Iterator[list[dict[str, Any]]]:
    for page in client("s3").get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        if found:
            yield [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in found]
