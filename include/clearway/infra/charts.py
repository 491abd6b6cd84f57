"""Small static charts as SVG text: axes, lines, bars, dots. No script, no font, no library.

Plot coordinates are data coordinates mapped onto a fixed box; the page scales the whole picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 460.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 14.0, 12.0, 40.0
MAX_POINTS = 160
COLORS = {"candidate": "#2563a8", "champion": "#d9730d", "trees": "#18794e", "line": "#8a97a6"}

Points = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """A box with ranges; every mark is drawn through it."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]

    def px(self, value: float) -> float:
        """Horizontal place of a value."""
        low, high = self.x
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def py(self, value: float) -> float:
        """Vertical place of a value."""
        low, high = self.y
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def chart(axes: Axes, *marks: str, title: str) -> str:
    """The picture; `title` is read aloud by screen readers."""
    floor, wall = HEIGHT - BOTTOM, WIDTH - RIGHT
    middle = (TOP + floor) / 2
    grid = "".join(
        f'<line x1="{LEFT}" x2="{wall}" y1="{axes.py(v):.1f}" y2="{axes.py(v):.1f}" stroke="#e1e7ee"/>'
        f'<text x="{LEFT - 6}" y="{axes.py(v) + 4:.1f}" text-anchor="end">{name}</text>'
        for v, name in axes.y_ticks
    )
    below = "".join(
        f'<text x="{axes.px(v):.1f}" y="{floor + 16}" text-anchor="middle">{name}</text>' for v, name in axes.x_ticks
    )
    labels = (
        f'<text x="{(LEFT + wall) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{axes.x_label}</text>'
        f'<text transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">{axes.y_label}</text>'
    )
    frame = f'<line x1="{LEFT}" x2="{wall}" y1="{floor}" y2="{floor}" stroke="#8a97a6"/>'
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{title}"><title>{title}</title>'
        f"{grid}{below}{labels}{''.join(marks)}{frame}</svg>"
    )


def line(axes: Axes, xs: Points, ys: Points, *, color: str, dashed: bool = False, width: float = 2.0) -> str:
    """A polyline through at most MAX_POINTS of the points, ends included."""
    xs, ys = thinned(xs), thinned(ys)
    path = " ".join(f"{axes.px(float(x)):.1f},{axes.py(float(y)):.1f}" for x, y in zip(xs, ys, strict=True))
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"{dash}/>'


def dots(axes: Axes, xs: Points, ys: Points, *, color: str) -> str:
    """One small circle per point."""
    return "".join(
        f'<circle cx="{axes.px(float(x)):.1f}" cy="{axes.py(float(y)):.1f}" r="3.5" fill="{color}"/>'
        for x, y in zip(xs, ys, strict=True)
    )


def bars(axes: Axes, edges: Points, heights: Points, *, color: str, opacity: float = 0.55) -> str:
    """Bars between consecutive edges, standing on the lower end of the y range."""
    floor = axes.py(axes.y[0])
    parts = []
    for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
        x, top = axes.px(float(left)), axes.py(float(height))
        width = axes.px(float(right)) - x
        parts.append(f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{max(floor - top, 0):.1f}"/>')
    return f'<g fill="{color}" fill-opacity="{opacity}">{"".join(parts)}</g>'


def interval_mark(axes: Axes, y: float, bounds: tuple[float, float, float], *, color: str) -> str:
    """A horizontal interval with its estimate: bounds = (lower, estimate, upper)."""
    low, mid, high = (axes.px(b) for b in bounds)
    at = axes.py(y)
    return (
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{at:.1f}" y2="{at:.1f}" stroke="{color}" stroke-width="3"/>'
        f'<circle cx="{mid:.1f}" cy="{at:.1f}" r="5" fill="{color}"/>'
    )


def vertical(axes: Axes, x: float, *, color: str, dashed: bool = True) -> str:
    """A line at one x over the whole height."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    at = axes.px(x)
    return f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{color}"{dash}/>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names beside their colours, as HTML below a chart: (name, colour)."""
    keys = "".join(f'<span class="key" style="--c:{c}"></span>{name}' for name, c in entries)
    return f'<p class="soft">{keys}</p>'


def thinned(values: Points) -> npt.NDArray[np.float64]:
    """At most MAX_POINTS values at even places."""
    array = np.asarray(values, dtype=np.float64)
    if array.size <= MAX_POINTS:
        return array
    return array[np.linspace(0, array.size - 1, MAX_POINTS).astype(np.int64)]


def ticks(low: float, high: float, *, count: int = 5, digits: int = 2) -> list[tuple[float, str]]:
    """`count` + 1 evenly spaced ticks with their texts."""
    return [(float(v), f"{v:.{digits}f}") for v in np.linspace(low, high, count + 1)]
