"""What an endpoint bears out of what we ordered: which versions it holds, which it took back by itself. All pure."""

import dataclasses
from collections.abc import Mapping

from clearway.infra.aws.endpoint_control import Control, Copies, Giving, Held
from clearway.infra.aws.fleet import Live


def served(control: Control, live: Live | None) -> list[str]:
    """Digests that the endpoint holds where we put them; who is given copies is one of them."""
    if live is None:
        return []
    held = [d for d, version in control.held.items() if live.holds(version.variant, d)]
    copies = control.copies
    is_shadow = copies is not None and copies.digest in control.held and live.copies_to(copies.variant, copies.digest)
    return [*held, copies.digest] if copies is not None and is_shadow and copies.digest not in held else held


def scaled(control: Control, live: Live | None) -> list[str]:
    """Variants that are scaled; a shadow's machines stay as many as the answering variant had when copies began."""
    held = control.held.items()
    return [version.variant for d, version in held if live is not None and live.holds(version.variant, d)]


def is_copied(control: Control, live: Live | None) -> bool:
    """Whether the endpoint has the shadow variant that the newest copies go to."""
    copies = control.copies
    return copies is not None and live is not None and live.copies_to(copies.variant, copies.digest)


def ending(copies: Copies | None) -> Copies | None:
    """The same, ordered to end if they were to be given."""
    return dataclasses.replace(copies, giving=Giving.ENDING) if copies is not None and copies.is_on else copies


def broken_versions(control: Control, live: Live | None) -> dict[str, str]:
    """Digest → why: versions that SageMaker took back by itself. What waits outside while copies are given is none."""
    if live is not None and live.is_moving:
        return {}
    copies = control.copies
    if copies is not None and copies.giving is Giving.TAKEN_BACK:
        return {copies.digest: copies.failed}
    if copies is not None and copies.giving is Giving.GIVEN:
        return {} if is_copied(control, live) else {copies.digest: _taken_back(live)}
    if copies is not None and copies.giving in {Giving.ORDERED, Giving.ENDING}:
        return {}
    held = control.held.items()
    lost = [d for d, v in held if v.is_served and not (live is not None and live.holds(v.variant, d))]
    return {digest: _taken_back(live) for digest in lost}


def marked(control: Control, digest: str, *, is_served: bool) -> Control:
    """With this version seen, or not seen, to be served."""
    if digest not in control.held:
        return control
    version = dataclasses.replace(control.held[digest], is_served=is_served)
    return dataclasses.replace(control, held={**control.held, digest: version})


def without(held: Mapping[str, Held], digest: str) -> dict[str, Held]:
    """All but this version."""
    return {d: version for d, version in held.items() if d != digest}


def _taken_back(live: Live | None) -> str:
    if live is None:
        return "the endpoint is gone"
    return (
        f"the endpoint went back by itself to configuration {live.config}, which is without this version "
        f"(SageMaker's reason: {live.reason or 'none given'})"
    )
