"""Evidence as a line over time, for people: what was estimated, how surely, and how much speaks of harm."""

from dataclasses import dataclass

# Points that are kept; older ones are thinned by half, so that a curve always reaches from begin to end.
MAX_CURVE = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One look.

    Args:
        estimate, low, high: of the first thing compared, with its confidence sequence; None before there is one.
        harm_e: e-value of harm in that same thing.
    """

    at_s: float
    weight_pct: float
    estimate: float | None
    low: float | None
    high: float | None
    harm_e: float


def with_point(curve: tuple[Point, ...], point: Point) -> tuple[Point, ...]:
    """The curve with its newest look."""
    kept = curve[::2] if len(curve) >= MAX_CURVE else curve
    return (*kept, point)
