"""The words of the state machine: what was seen, what to do next.

`machine.step(document, seen, now_s) → Step` is pure. Its document is stored before its action is performed, so whoever
resumes after a crash finds the intent and goes on.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from clearway.contracts.observed import Mirrored, Observed
from clearway.contracts.release_document import ReleaseDocument, Version
from clearway.contracts.verdict import Check
from clearway.infra.endpoint import Mirror


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is known of the endpoint now.

    Args:
        loaded: digests that are loaded and ready.
        weights_pct: digest → share of traffic in percent.
        endpoint_epoch: newest epoch the endpoint has seen; once it is ours, older holders are refused there too.
        golden: how the loaded candidate answered its package's golden rows; None before it was asked.
        live: whether callers are answered by the version in question; None before it was asked, or after the traffic
            changed.
        mirror: digest of the version that is given copies of requests; None for none.
        dead_man: digest of the version that takes all traffic when this driver falls silent; None while none is armed.
        broken: digest → why the endpoint itself took the version out of service.
        unaskable: loaded digests that cannot be asked directly while they are given copies of requests.
        observed: what the endpoint counted per version; None before it was asked in this look.
        mirrored: rows that both versions were given; None before it was asked in this look.
    """

    loaded: frozenset[str]
    weights_pct: dict[str, float]
    endpoint_epoch: int
    golden: Check | None = None
    live: Check | None = None
    mirror: str | None = None
    dead_man: str | None = None
    broken: dict[str, str] = field(default_factory=dict)
    unaskable: frozenset[str] = frozenset()
    observed: Observed | None = None
    mirrored: Mirrored | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Bring a version beside the others; loading it again only tells the endpoint our epoch."""

    name: ClassVar[str] = "load"
    version: Version


@dataclass(frozen=True, slots=True)
class CheckGolden:
    """Ask the loaded version itself for its golden rows."""

    name: ClassVar[str] = "golden"
    version: Version


@dataclass(frozen=True, slots=True)
class SetWeights:
    """Switch the traffic table atomically.

    Args:
        has_dead_man: back to the champion if this driver falls silent.
        mirror: version that is given copies of requests, and the columns whose values name slices; None for none.
    """

    name: ClassVar[str] = "weights"
    weights_pct: dict[str, float] = field(default_factory=dict)
    has_dead_man: bool = False
    mirror: Mirror | None = None


@dataclass(frozen=True, slots=True)
class ProbeLive:
    """Ask as any caller does, several times, and see who answers."""

    name: ClassVar[str] = "probe"
    digest: str


@dataclass(frozen=True, slots=True)
class Observe:
    """Read what the endpoint counted per version; also the sign of life that its dead-man timer waits for."""

    name: ClassVar[str] = "observe"


@dataclass(frozen=True, slots=True)
class ReadMirrored:
    """Read rows that both versions were given. `next_row`: per log, the first that is not known yet."""

    name: ClassVar[str] = "mirrored"
    next_row: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wait:
    """Let traffic flow, then look again."""

    name: ClassVar[str] = "wait"
    seconds: float


Action = Load | CheckGolden | SetWeights | ProbeLive | Observe | ReadMirrored | Wait


@dataclass(frozen=True, slots=True)
class Step:
    """The document to store, then the action to perform; no action means: look again, or finished when idle."""

    document: ReleaseDocument
    action: Action | None = None
