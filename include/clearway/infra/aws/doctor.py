"""What docs/aws.md asks of an account, looked at one by one. Nothing is changed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clearway.contracts.errors import ClearwayError
from clearway.infra.aws.client import client, explained
from clearway.infra.aws.installation import JOB_FILE, KEY_BYTES
from clearway.infra.aws.s3_storage import bucket_and_key
from clearway.infra.environment import PREFIX, Aws, Environment

ASK_TIMEOUT_S = 5.0
_PODS, _OIDC = "pods.eks.amazonaws.com", ":oidc-provider/"
_BLOCKS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at. `todo`: what to do if it is not good."""

    about: str
    is_good: bool
    found: str
    allowed: str
    todo: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """`ask` says what there is, and whether that will do. `named`: the setting that it asks about, if it is one."""

    about: str
    allowed: str
    todo: str
    ask: Callable[[], tuple[bool, str]]
    named: str | None = None


def examine(env: Environment) -> list[Check]:
    """All that this environment needs of its account, in the order of the table in docs/aws.md."""
    return [_answered(question) for question in _questions(env)]


def _answered(question: _Question) -> Check:
    from botocore import exceptions as botocore  # noqa: PLC0415

    try:
        is_good, found = (False, "not set") if question.named == "" else question.ask()
    except (ClearwayError, botocore.ClientError) as error:
        is_good, found = False, str(error)
    return Check(about=question.about, is_good=is_good, found=found, allowed=question.allowed, todo=question.todo)


def _questions(env: Environment) -> list[_Question]:
    aws = env.aws
    found = [
        _Question(
            about="caller",
            allowed="credentials that AWS knows",
            todo="log in, or set AWS_PROFILE and AWS_DEFAULT_REGION",
            ask=_caller,
        ),
        *_of_bucket(env),
        _of_table(env),
        _of_secret(aws.signing_secret),
        _of_image("training image", aws.training_image, "AWS__TRAINING_IMAGE"),
        _of_role("role of trainings", aws.training_role, "AWS__TRAINING_ROLE", service="sagemaker"),
        *_of_spark(aws),
        _of_queue(aws.batch_queue, aws.batch_share),
        *(_of_definition(name) for name in sorted({aws.batch_definition, *aws.batch_definitions.values()})),
        *_of_nodes(aws),
        _of_server("MLflow", env.tracking.uri, "/health", "TRACKING__URI"),
    ]
    if env.endpoint.kind == "sagemaker":
        found += [
            _of_image("serving image", env.sagemaker.image, "SAGEMAKER__IMAGE"),
            _of_role("role of serving containers", env.sagemaker.role, "SAGEMAKER__ROLE", service="sagemaker"),
        ]
    else:
        everyones = {} if "{product}" in env.endpoint.url else {"": env.endpoint.url}
        found += [
            _of_server(f"model server {product}".strip(), url, "/healthz", "ENDPOINT__URL")
            for product, url in (everyones | env.endpoint.urls).items()
        ]
    return found


def _caller() -> tuple[bool, str]:
    with explained("who calls"):
        return True, client("sts").get_caller_identity()["Arn"]


def _of_bucket(env: Environment) -> list[_Question]:
    root = env.store_root
    bucket = bucket_and_key(root)[0] if root.startswith("s3://") else ""
    named = {"Bucket": bucket}

    def ask(look: Callable[[], tuple[bool, str]]) -> Callable[[], tuple[bool, str]]:
        def asked() -> tuple[bool, str]:
            if not bucket:
                return False, f"the store is {root}"
            with explained(f"bucket {bucket}"):
                return look()

        return asked

    def versions() -> tuple[bool, str]:
        status = client("s3").get_bucket_versioning(**named).get("Status", "never switched on")
        return status == "Enabled", status

    def encryption() -> tuple[bool, str]:
        rules = client("s3").get_bucket_encryption(**named)["ServerSideEncryptionConfiguration"]["Rules"]
        return bool(rules), ", ".join(r["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] for r in rules)

    def privacy() -> tuple[bool, str]:
        found = client("s3").get_public_access_block(**named)["PublicAccessBlockConfiguration"]
        missing = [block for block in _BLOCKS if not found.get(block)]
        return not missing, f"without {', '.join(missing)}" if missing else "blocked"

    def there() -> tuple[bool, str]:
        client("s3").head_bucket(**named)
        return True, bucket

    def switch(about: str, allowed: str, look: Callable[[], tuple[bool, str]]) -> _Question:
        return _Question(
            about=about, allowed=allowed, todo=f"run `aws up`, or {about} of bucket {bucket}", ask=ask(look)
        )

    return [
        _Question(
            about="bucket",
            allowed="a bucket that is there and that this caller may see",
            todo=f"run `aws up`, or make one and set {PREFIX}STORAGE__ROOT=s3://bucket/prefix",
            ask=ask(there),
        ),
        switch("versions", "Enabled", versions),
        switch("encryption", "AES256 or aws:kms", encryption),
        switch("public access", "blocked, in all four ways", privacy),
    ]


def _of_table(env: Environment) -> _Question:
    scheme, _, table = env.release_store_url.partition("://")

    def ask() -> tuple[bool, str]:
        if scheme != "dynamodb":
            return False, f"the release store is {scheme}"
        with explained(f"table {table}"):
            found = client("dynamodb").describe_table(TableName=table)["Table"]
        kinds = {about["AttributeName"]: about["AttributeType"] for about in found["AttributeDefinitions"]}
        key = [f"{part['AttributeName']} ({kinds[part['AttributeName']]})" for part in found["KeySchema"]]
        return key == ["product (S)"] and found[
            "TableStatus"
        ] == "ACTIVE", f"key {', '.join(key)}, {found['TableStatus']}"

    return _Question(
        about="table",
        allowed="key product (S), ACTIVE",
        todo=f"run `aws up`, or make one and set {PREFIX}RELEASE_STORE__URL=dynamodb://table",
        ask=ask,
    )


def _of_secret(secret: str) -> _Question:
    def ask() -> tuple[bool, str]:
        with explained(f"secret {secret}"):
            found = client("secretsmanager").get_secret_value(SecretId=secret)
        size = len(found.get("SecretBinary", b""))
        return size == KEY_BYTES, f"{size} bytes" if "SecretBinary" in found else "a text"

    return _Question(
        about="signing key",
        allowed=f"a binary secret of {KEY_BYTES} bytes",
        todo=f"run `aws up`, or make one of {KEY_BYTES} random bytes and set {PREFIX}AWS__SIGNING_SECRET",
        named=secret,
        ask=ask,
    )


def _of_image(about: str, image: str, variable: str) -> _Question:
    registry, _, rest = image.partition("/")
    repository, _, tag = rest.partition(":")

    def ask() -> tuple[bool, str]:
        if ".dkr.ecr." not in registry or not tag:
            return False, image
        with explained(f"repository {repository}"):
            found = client("ecr").describe_images(
                registryId=registry.partition(".")[0], repositoryName=repository, imageIds=[{"imageTag": tag}]
            )["imageDetails"]
        return bool(found), f"{repository}:{tag}, {found[0]['imageDigest'][:19]}"

    return _Question(
        about=about,
        allowed="an image of ECR, by its tag, that has been pushed",
        todo=f"push it as docs/aws.md says, or correct {PREFIX}{variable}",
        named=image,
        ask=ask,
    )


def _of_role(about: str, role: str, variable: str, *, service: str) -> _Question:
    principal = f"{service}.amazonaws.com"

    def ask() -> tuple[bool, str]:
        trusted = _trusted_by(role)
        return principal in trusted, f"trusts {', '.join(trusted) or 'nobody'}"

    return _Question(
        about=about,
        allowed=f"a role that trusts {principal}",
        todo=f"run `aws up`, or correct {PREFIX}{variable}",
        named=role,
        ask=ask,
    )


def _trusted_by(role: str) -> list[str]:
    with explained(f"role {role}"):
        found = client("iam").get_role(RoleName=role.rpartition("/")[2])["Role"]
    return sorted(_trusted(found["AssumeRolePolicyDocument"]))


def _trusted(policy: Mapping[str, Any]) -> set[str]:
    """Services and identity providers that may take the role."""
    found: set[str] = set()
    for statement in policy.get("Statement", ()):
        if statement.get("Effect") == "Allow":
            for kind in ("Service", "Federated"):
                named = statement.get("Principal", {}).get(kind, [])
                found |= {named} if isinstance(named, str) else set(named)
    return found


def _of_spark(aws: Aws) -> list[_Question]:
    """What the service needs that runs stage preprocess; nothing if that is Batch."""
    chosen = aws.services.preprocess
    if chosen == "emr_serverless":
        found = [
            _of_role("role of Spark jobs", aws.emr_role, "AWS__EMR_ROLE", service="emr-serverless"),
            _of_application(aws.emr_application),
        ]
    elif chosen == "emr_ec2":
        found = [
            _of_role("role of EMR", aws.emr_service_role, "AWS__EMR_SERVICE_ROLE", service="elasticmapreduce"),
            _of_profile(aws.emr_profile),
            _of_subnets(aws.subnets),
            _of_group("security groups of clusters", aws.security_groups, "AWS__SECURITY_GROUPS"),
            _of_group("security group of EMR", aws.emr_access_group, "AWS__EMR_ACCESS_GROUP"),
        ]
    elif chosen == "emr_eks":
        found = [_of_virtual_cluster(aws.emr_virtual_cluster), _of_pods_role(aws.emr_eks_role)]
    else:
        return []
    return [*found, _of_code(aws.emr_code)]


def _of_profile(profile: str) -> _Question:
    def ask() -> tuple[bool, str]:
        with explained(f"instance profile {profile}"):
            name = profile.rpartition("/")[2]
            roles = client("iam").get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
        trusted = {service for role in roles for service in _trusted(role["AssumeRolePolicyDocument"])}
        words = (
            f"role {', '.join(role['RoleName'] for role in roles) or 'none'}, trusts {', '.join(trusted) or 'nobody'}"
        )
        return "ec2.amazonaws.com" in trusted, words

    return _Question(
        about="profile of EMR's machines",
        allowed="an instance profile with a role that trusts ec2.amazonaws.com",
        todo=f"run `aws up --with emr`, or correct {PREFIX}AWS__EMR_PROFILE",
        named=profile,
        ask=ask,
    )


def _of_subnets(subnets: str) -> _Question:
    def ask() -> tuple[bool, str]:
        with explained(f"subnets {subnets}"):
            found = client("ec2").describe_subnets(SubnetIds=subnets.split())["Subnets"]
        networks = sorted({subnet["VpcId"] for subnet in found})
        return len(networks) == 1, f"{len(found)} in {', '.join(networks)}"

    return _Question(
        about="subnets of clusters",
        allowed="subnets that are there, of one network",
        todo=f"run `aws up`, or correct {PREFIX}AWS__SUBNETS",
        named=subnets,
        ask=ask,
    )


def _of_group(about: str, groups: str, variable: str) -> _Question:
    def ask() -> tuple[bool, str]:
        with explained(f"security groups {groups}"):
            found = client("ec2").describe_security_groups(GroupIds=groups.split())["SecurityGroups"]
        return True, ", ".join(group["GroupName"] for group in found)

    return _Question(
        about=about,
        allowed="groups that are there",
        todo=f"run `aws up --with emr`, or correct {PREFIX}{variable}",
        named=groups,
        ask=ask,
    )


def _of_virtual_cluster(cluster: str) -> _Question:
    def ask() -> tuple[bool, str]:
        with explained(f"virtual cluster {cluster}"):
            found = client("emr-containers").describe_virtual_cluster(id=cluster)["virtualCluster"]
        return found["state"] == "RUNNING", f"{found['state']}, on {found['containerProvider']['id']}"

    return _Question(
        about="virtual cluster",
        allowed="a virtual cluster of EMR on EKS, RUNNING",
        todo=f"make one as EMR's guide says, then `aws up --with pods`, or correct {PREFIX}AWS__EMR_VIRTUAL_CLUSTER",
        named=cluster,
        ask=ask,
    )


def _of_pods_role(role: str) -> _Question:
    def ask() -> tuple[bool, str]:
        trusted = _trusted_by(role)
        return any(one == _PODS or _OIDC in one for one in trusted), f"trusts {', '.join(trusted) or 'nobody'}"

    return _Question(
        about="role of pods",
        allowed=f"a role that trusts the cluster's OIDC provider or {_PODS}",
        todo=f"have it trusted as EMR's guide says (update-role-trust-policy), or correct {PREFIX}AWS__EMR_EKS_ROLE",
        named=role,
        ask=ask,
    )


def _of_application(application: str) -> _Question:
    def ask() -> tuple[bool, str]:
        with explained(f"EMR application {application}"):
            found = client("emr-serverless").get_application(applicationId=application)["application"]
        is_good = found["type"].upper() == "SPARK" and found["state"] != "TERMINATED"
        return is_good, f"{found['type']}, {found['state']}"

    return _Question(
        about="Spark application",
        allowed="an application of type Spark, not TERMINATED",
        todo=f"run `aws up`, or correct {PREFIX}AWS__EMR_APPLICATION",
        named=application,
        ask=ask,
    )


def _of_code(code: str) -> _Question:
    def ask() -> tuple[bool, str]:
        missing = []
        for name in (JOB_FILE, "environment.tar.gz"):
            bucket, key = bucket_and_key(f"{code}/{name}")
            with explained(code):
                if not client("s3").list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents"):
                    missing.append(name)
        return not missing, f"without {', '.join(missing)}" if missing else "both files"

    return _Question(
        about="code of Spark jobs",
        allowed=f"a folder with {JOB_FILE} and environment.tar.gz",
        todo=f"run `aws up` and upload the packed environment as docs/aws.md says, or correct {PREFIX}AWS__EMR_CODE",
        named=code,
        ask=ask,
    )


def _of_queue(queue: str, share: str, *, about: str = "queue", variable: str = "QUEUE") -> _Question:
    def ask() -> tuple[bool, str]:
        with explained(f"queue {queue}"):
            queues = client("batch").describe_job_queues(jobQueues=[queue])["jobQueues"]
        if not queues:
            return False, "none of that name"
        state, status, is_shared = queues[0]["state"], queues[0]["status"], bool(queues[0].get("schedulingPolicyArn"))
        words = f"{state}, {status}, {'with' if is_shared else 'without'} shares; batch_share is {share or 'empty'}"
        return (state, status, is_shared) == ("ENABLED", "VALID", bool(share)), words

    return _Question(
        about=about,
        allowed="ENABLED and VALID; a batch_share exactly if it has a fair-share policy",
        todo=f"run `aws up`, or correct {PREFIX}AWS__BATCH_{variable} and {PREFIX}AWS__BATCH_SHARE",
        named=queue,
        ask=ask,
    )


def _of_nodes(aws: Aws) -> list[_Question]:
    """Of a training on several machines of Batch, where settings ask for one."""
    if aws.services.train != "batch" or aws.training_count == 1:
        return []
    return [
        _of_queue(aws.batch_nodes_queue, aws.batch_share, about="queue of nodes", variable="NODES_QUEUE"),
        _of_definition(aws.batch_nodes_definition, kind="multinode", todo="run `aws up --with nodes`"),
    ]


def _of_definition(definition: str, *, kind: str = "container", todo: str = "run `aws up`") -> _Question:
    def ask() -> tuple[bool, str]:
        with explained(f"job definition {definition}"):
            asked = {"jobDefinitionName": definition, "status": "ACTIVE"}
            found = client("batch").describe_job_definitions(**asked)["jobDefinitions"]
        kinds = sorted({about["type"] for about in found})
        return kinds == [kind], f"{len(found)} ACTIVE of type {', '.join(kinds)}" if found else "none is ACTIVE"

    return _Question(
        about=f"job definition {definition}".strip(),
        allowed=f"an ACTIVE one of type {kind}",
        todo=f"{todo}, or correct {PREFIX}AWS__BATCH_{'NODES_' if kind == 'multinode' else ''}DEFINITION",
        named=definition,
        ask=ask,
    )


def _of_server(about: str, url: str, path: str, variable: str) -> _Question:
    def ask() -> tuple[bool, str]:
        import httpx  # noqa: PLC0415

        try:
            answer = httpx.get(url.rstrip("/") + path, timeout=ASK_TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return False, f"{url}: {error}"
        return answer.is_success, f"{url}: HTTP {answer.status_code}"

    return _Question(
        about=about,
        allowed=f"a server that answers {path} here, and to jobs",
        todo=f"start it where jobs reach it, and set {PREFIX}{variable}",
        named=url,
        ask=ask,
    )
