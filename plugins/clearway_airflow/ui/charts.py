"""Lines over time as SVG: an estimate with its band, the limits it is held against, and where shares changed. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 760, 210
LEFT, RIGHT, TOP, BOTTOM = 64, 84, 18, 26  # room for labels around the drawing
NUM_TICKS = 4
HEADROOM = 0.15  # above and below what matters, as a part of it; a band that is wider is cut off there
MINUTE_S, HOUR_S = 60, 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One point of a line; `low` and `high`: its band, equal to `value` where there is none."""

    at_s: float
    value: float
    low: float
    high: float
    stage: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A level that decides, with its name."""

    value: float
    label: str


def chart(
    title: str,
    spots: Sequence[Spot],
    *,
    bounds: Sequence[Bound],
    say: Callable[[float], str],
    min_tick: float = 0.0,
) -> str:
    """A figure with caption; "" for less than two points.

    Args:
        say: writes a value of the vertical axis.
        min_tick: smallest distance of two values that are written there.
    """
    if len(spots) < 2:  # noqa: PLR2004 - a line needs two
        return ""
    low, high = _range([*(s.value for s in spots), *(b.value for b in bounds), spots[-1].low, spots[-1].high])
    begin_s, span_s = spots[0].at_s, (spots[-1].at_s - spots[0].at_s) or 1.0

    def x(at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at_s - begin_s) / span_s

    def y(value: float) -> float:
        inside = min(max(value, low), high)
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - inside) / (high - low)

    def points(values: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x(at_s):.1f},{y(value):.1f}" for at_s, value in values)

    upper, lower = [(s.at_s, s.high) for s in spots], [(s.at_s, s.low) for s in reversed(spots)]
    parts = [_grid(_ticks(low, high, min_tick), y, say), _stages(spots, x)]
    if any(s.low != s.high for s in spots):
        parts.append(f'<polygon class="band" points="{points([*upper, *lower])}"/>')
    parts += [_bound(bound, y) for bound in bounds]
    parts.append(f'<polyline class="line" points="{points([(s.at_s, s.value) for s in spots])}"/>')
    parts.append(f'<circle class="dot" cx="{x(spots[-1].at_s):.1f}" cy="{y(spots[-1].value):.1f}" r="3.5"/>')
    parts.append(_clock(span_s, x, begin_s))
    label = escape(f"{title}; last {say(spots[-1].value)}")
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{label}"'
    return f"<figure><figcaption>{escape(title)}</figcaption><svg {box}>{''.join(parts)}</svg></figure>"


def percent(value: float) -> str:
    """A share with as many digits as small ones need."""
    return f"{value * 100:.4g} %"


def signed(value: float) -> str:
    """A difference."""
    return f"{value:+.4g}" if abs(value) > 1e-9 else "0"  # noqa: PLR2004 - what is left of rounding is nothing


def power_of_ten(value: float) -> str:
    """What a logarithm stands for."""
    return f"{10**value:.4g}" if value < 4 else f"1e{value:.0f}"  # noqa: PLR2004 - longer numbers are hard to read


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(0.0, *values), max(0.0, *values)
    room = ((high - low) or 1.0) * HEADROOM
    return (low - room if low < 0 else 0.0), high + room


def _ticks(low: float, high: float, least: float) -> list[float]:
    """Round values, about NUM_TICKS of them."""
    rough = max((high - low) / NUM_TICKS, least)
    power = 10.0 ** floor(log10(rough))
    step = next(power * part for part in (1, 2, 5, 10) if power * part >= rough * (1 - 1e-9))
    return [step * i for i in range(ceil(low / step), floor(high / step) + 1)]


def _grid(ticks: Sequence[float], y: Callable[[float], float], say: Callable[[float], str]) -> str:
    lines = []
    for value in ticks:
        at = f"{y(value):.1f}"
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{escape(say(value))}</text>')
    return "".join(lines)


def _stages(spots: Sequence[Spot], x: Callable[[float], float]) -> str:
    """A mark and a name wherever the share is another one."""
    marks, before = [], ""
    for spot in spots:
        if spot.stage and spot.stage != before:
            at = f"{x(spot.at_s):.1f}"
            marks.append(f'<line class="stage" x1="{at}" x2="{at}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
            marks.append(f'<text class="name" x="{x(spot.at_s) + 4:.1f}" y="{TOP - 5}">{escape(spot.stage)}</text>')
        before = spot.stage
    return "".join(marks)


def _bound(bound: Bound, y: Callable[[float], float]) -> str:
    at = f"{y(bound.value):.1f}"
    return (
        f'<line class="bound" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>'
        f'<text class="limit" x="{WIDTH - RIGHT + 6}" y="{y(bound.value) + 4:.1f}">{escape(bound.label)}</text>'
    )


def _clock(span_s: float, x: Callable[[float], float], begin_s: float) -> str:
    ticks = [(begin_s + span_s * part, span_s * part) for part in (0.0, 0.5, 1.0)]
    return "".join(
        f'<text x="{x(at_s):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{_duration(passed_s)}</text>'
        for at_s, passed_s in ticks
    )


def _duration(seconds: float) -> str:
    if seconds >= 2 * HOUR_S:
        return f"{seconds / HOUR_S:.1f} h"
    return f"{seconds / MINUTE_S:.1f} min" if seconds >= 2 * MINUTE_S else f"{seconds:.0f} s"
