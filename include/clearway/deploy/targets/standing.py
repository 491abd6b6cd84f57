"""What is written down, whatever it is written for: which versions serve which shares, and how a container runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clearway.contracts.errors import ConfigError
from clearway.contracts.release_document import Phase, ReleaseDocument, Version
from clearway.infra.aws.container import model_variables, variables_of
from clearway.infra.aws.tags import ENVIRONMENT, PRODUCT, TEAM
from clearway.infra.environment import PREFIX, Containers, Environment

ALL_PCT = 100.0
PORT = 8080
HEALTH_PATH, CALL_PATH = "/ping", "/invocations"  # all that `clearway.serve.sagemaker` answers
USER_ID = 50000  # of the image, without rights
HOME = "/var/lib/clearway"  # the only folder a container may write
LOAD_S = 300  # until a model has been fetched, verified and warmed up
PROBE_S = 10
NUM_FAILURES = 6  # a container that says nothing for a minute is replaced
# The server's own: requests under way on SIGTERM get 10 s; then what waits of the prediction log is written.
DRAIN_S, FLUSH_S = 10, 25
NAME_DIGITS = 12  # of a digest, in names
_IMAGE = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One version and its share of callers, 0 to 100."""

    digest: str
    uri: str
    share_pct: float

    @property
    def short(self) -> str:
        """Enough of the digest for a name."""
        return self.digest[:NAME_DIGITS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Who serves a product.

    Args:
        product: its name.
        team: its first owner.
        environment: as in CLEARWAY_ENV.
        champion: takes what the candidate does not.
        candidate: while a rollout is under way, even before its first share; None otherwise.
        variables: of every container, besides its model's.
        containers: settings.
    """

    product: str
    team: str
    environment: str
    champion: Served
    candidate: Served | None
    variables: dict[str, str]
    containers: Containers

    @property
    def versions(self) -> tuple[Served, ...]:
        return (self.champion, *([self.candidate] if self.candidate else []))

    @property
    def name(self) -> str:
        """Of the product where no underscore is allowed."""
        return self.product.replace("_", "-")

    def name_of(self, version: Served) -> str:
        return f"{self.name}-{version.short}"

    @property
    def tags(self) -> dict[str, str]:
        """As on everything that is made on AWS."""
        return {TEAM: self.team, PRODUCT: self.product, ENVIRONMENT: self.environment}

    def model_variables(self, version: Served) -> dict[str, str]:
        return model_variables(version.uri, version.digest)

    def whole_shares(self, parts: int) -> list[tuple[Served, int]]:
        """Shares as whole parts of `parts`, which is what balancers take. Raises: ConfigError if that changes one."""
        if self.candidate is None:
            return [(self.champion, parts)]
        asked = self.candidate.share_pct * parts / ALL_PCT
        if abs(asked - round(asked)) > 1e-6:  # noqa: PLR2004 - what floats add
            raise ConfigError(
                f"share {self.candidate.share_pct:g} % of version {self.candidate.short} is no whole number of parts "
                f"of {parts}, which is all this target takes; choose another one as rollout.steps_pct"
            )
        return [(self.champion, parts - round(asked)), (self.candidate, round(asked))]


def stand(document: ReleaseDocument, *, env: Environment, team: str, needs: Sequence[str]) -> Standing:
    """Who serves now, as the release document says.

    Args:
        needs: settings of section `containers` that the target cannot do without.
    Raises: ConfigError if nothing serves yet, a package is not in S3, or a setting is missing.
    """
    _check(env, ["image", *needs])
    if document.champion is None:
        raise ConfigError(f"nothing serves {document.product!r} yet; release a model first")
    candidate, is_under_way = document.candidate, document.phase is Phase.DEPLOYING
    if candidate is not None and (not is_under_way or candidate.digest == document.champion.digest):
        candidate = None  # traffic is on its way back, or nothing changes
    share_pct = document.weight_pct if candidate else 0.0
    return Standing(
        product=document.product,
        team=team,
        environment=env.name,
        champion=_served(document.champion, ALL_PCT - share_pct),
        candidate=_served(candidate, share_pct) if candidate else None,
        variables={**variables_of(env, home=HOME), "TMPDIR": HOME},
        containers=env.containers,
    )


def _served(version: Version, share_pct: float) -> Served:
    if not version.uri.startswith("s3://") or not _DIGEST.fullmatch(version.digest):
        raise ConfigError(
            f"package {version.uri!r} with digest {version.digest[:80]!r} is nothing a container can fetch; it has to "
            "lie in S3 (CLEARWAY_ENV=aws)"
        )
    return Served(digest=version.digest, uri=version.uri, share_pct=share_pct)


def _check(env: Environment, needs: Sequence[str]) -> None:
    absent = [name for name in needs if not getattr(env.containers, name)]
    if absent:
        named = ", ".join(f"{PREFIX}CONTAINERS__{name.upper()}" for name in absent)
        raise ConfigError(f"{named} not set; docs/reference/settings.md says what they are")
    if not _IMAGE.fullmatch(env.containers.image):
        raise ConfigError(
            f"containers.image {env.containers.image!r} is a name that may mean another image tomorrow; give it as "
            "repository@sha256:…, which docker push prints"
        )
    if not env.aws.signing_secret:
        raise ConfigError(
            f"{PREFIX}AWS__SIGNING_SECRET is not set; without the account's key a container trusts no package"
        )
