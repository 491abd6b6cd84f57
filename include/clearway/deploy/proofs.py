"""What a version must prove: golden answers before it takes traffic, its own digest on live answers after."""

import math
from collections.abc import Sequence

from clearway.contracts.errors import ConfigError, IntegrityError
from clearway.contracts.release_document import Version
from clearway.contracts.verdict import Check, Verdict
from clearway.deploy.controls import Controls

# Room for float32 rounding under another CPU's instruction set (1e-7 near 1); other weights differ far more.
GOLDEN_TOLERANCE = 1e-5
# Several answers, because a table with two versions in it could hide behind one lucky draw.
NUM_LIVE_PROBES = 5


def check_golden(controls: Controls, version: Version) -> Check:
    """The loaded version answers its package's golden rows as training recorded them.

    A damaged package or refused rows are a FAIL. Raises: Unavailable if the endpoint does not answer.
    """
    from clearway.packaging.package import open_package  # noqa: PLC0415 - pyarrow and numpy, only where packages are read

    try:
        package = open_package(controls.storage, version.uri, version.digest, key_folder=controls.key_folder)
        scores, digest = controls.endpoint.predict(package.golden["rows"], digest=version.digest)
    except (IntegrityError, ConfigError) as error:
        return _failed("golden", str(error))
    if digest != version.digest:
        return _failed("golden", f"version {digest} answered for {version.digest}; load the right package")
    return compare_golden(scores, package.golden["scores"])


def compare_golden(scores: Sequence[float], golden: Sequence[float]) -> Check:
    """Answers equal to the recorded scores, within GOLDEN_TOLERANCE. A missing or non-finite answer fails."""
    if not golden or len(scores) != len(golden):
        return _failed(
            "golden", f"{len(scores)} answers for {len(golden)} golden rows; both must be the same, at least 1"
        )
    gaps = [abs(score - recorded) for score, recorded in zip(scores, golden, strict=True)]
    if not all(math.isfinite(gap) for gap in gaps):
        return _failed("golden", "a golden row has no finite answer; the package and the server disagree")
    worst = max(gaps)
    is_equal = worst <= GOLDEN_TOLERANCE
    reason = f"answers differ from the recorded ones by {worst:.2g}, allowed {GOLDEN_TOLERANCE:.0e}"
    verdict = Verdict.PASS if is_equal else Verdict.FAIL
    return Check(name="golden", verdict=verdict, value=worst, bound=GOLDEN_TOLERANCE, reason=reason)


def probe_live(controls: Controls, digest: str) -> Check:
    """Callers are answered by `digest`: every one of NUM_LIVE_PROBES answers carries it. Raises: Unavailable."""
    try:
        rows = controls.endpoint.examples(digest)
        answered = [controls.endpoint.predict(rows)[1] for _ in range(NUM_LIVE_PROBES)]
    except ConfigError as error:  # no longer loaded, or another version answered and does not take its rows
        return _failed("live", str(error))
    strangers = sorted(set(answered) - {digest})
    if strangers:
        num_wrong = sum(found != digest for found in answered)
        text = f"{num_wrong} of {NUM_LIVE_PROBES} live answers came from {strangers[0]} instead of {digest}"
        return _failed("live", text)
    return Check(
        name="live", verdict=Verdict.PASS, reason=f"{NUM_LIVE_PROBES} of {NUM_LIVE_PROBES} live answers carry it"
    )


def _failed(name: str, reason: str) -> Check:
    return Check(name=name, verdict=Verdict.FAIL, reason=reason)
