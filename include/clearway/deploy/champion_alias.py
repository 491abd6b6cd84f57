"""The registry's alias `champion`: a picture of the release document for people. Traffic is never routed by it."""

import logging
from typing import TYPE_CHECKING

from clearway.contracts.errors import Unavailable
from clearway.contracts.release_document import Version

if TYPE_CHECKING:
    from clearway.infra.environment import Environment

log = logging.getLogger("clearway.deploy")


def project_champion(env: "Environment", product: str, version: Version) -> bool:
    """Register the version and point the alias at it; False, with a warning, if the registry does not answer.

    A deployment does not fail for its picture: the reconciler compares alias and document, and calls this again.
    """
    from clearway.infra.tracking import TAG_RELEASE, open_tracking  # noqa: PLC0415 - MLflow costs 1.5 s to import

    try:
        tracking = open_tracking(env)
        if tracking.alias_digest(product) != version.digest:
            tags = {TAG_RELEASE: version.release_id}
            number = tracking.register(product, digest=version.digest, run_id="", tags=tags)
            tracking.set_alias(product, version=number)
    except Unavailable as error:
        log.warning("registry alias was not moved, the reconciler will: %s", error)
        return False
    return True


def alias_digest(env: "Environment", product: str) -> str | None:
    """Digest the alias points at, or None. Raises: Unavailable."""
    from clearway.infra.tracking import open_tracking  # noqa: PLC0415

    return open_tracking(env).alias_digest(product)
