"""Small pieces of HTML that the pages share. Every value is escaped."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from clearway_airflow.ui.looking_again import AGAIN, SCRIPT

STYLE = """
:root { --ink: #1d2733; --quiet: #51606f; --rule: #e3e8ee; --paper: #fff; --line: #2f6fab; --good: #0a7d33;
--bad: #b3261e; --open: #8a5a00; --soft: #f5f8fb; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem 2rem 3rem; color: var(--ink); background: var(--paper);
max-width: 75rem; } h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 1.8rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; } a { color: var(--line); }
table { border-collapse: collapse; margin: .6rem 0; } th, td { text-align: left; padding: .3rem .9rem .3rem 0;
vertical-align: top; border-bottom: 1px solid var(--rule); font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--quiet); } th, td:first-child { white-space: nowrap; } code { font-size: .85em; }
.pass, .promoted { color: var(--good); } .fail, .aborted, .rolled_back { color: var(--bad); }
.inconclusive, .superseded { color: var(--open); } .error { color: var(--bad); font-weight: 600; }
.quiet, figcaption { color: var(--quiet); } .turn a { margin-right: 1.2rem; }
figure { margin: .8rem 0 1rem; } figcaption { font-size: .85rem; margin-bottom: .2rem; }
svg { background: var(--soft); border-radius: 6px; max-width: 100%; height: auto; }
svg text { font-size: 11.5px; fill: var(--quiet); } svg .limit { fill: var(--bad); }
svg .line { fill: none; stroke: var(--line); stroke-width: 2; stroke-linejoin: round; } svg .dot { fill: var(--line); }
svg .band { fill: var(--line); fill-opacity: .16; } svg .grid { stroke: var(--rule); }
svg .bound { stroke: var(--bad); stroke-dasharray: 5 4; } svg .stage { stroke: var(--quiet); stroke-dasharray: 2 3; }
details, form p { margin: .3rem 0; } summary { cursor: pointer; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --quiet: #9fb0c0; --rule: #2b343d; --paper: #14181d;
--line: #8ab4f8; --good: #6fd08c; --bad: #ff8a80; --open: #ffca66; --soft: #1a2027; } }
"""


def page(title: str, body: str, *, is_live: bool = False) -> str:
    """A whole document. `is_live`: it follows what happens by itself."""
    script = f"{AGAIN}<script>{SCRIPT}</script>" if is_live else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{body}{script}</body></html>"
    )


def table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{lines}</table>"


def verdict(value: str) -> str:
    """A verdict in its colour."""
    return f'<span class="{escape(value)}">{escape(value)}</span>'


def digest(value: str | None) -> str:
    """The head of a digest, the whole of it on hover."""
    return f'<code title="{escape(value)}">{escape(value[:12])}</code>' if value else '<span class="quiet">none</span>'


def code(text: str) -> str:
    """An identifier."""
    return f"<code>{escape(text)}</code>"


def time(at_s: float) -> str:
    """Unix seconds as UTC."""
    return datetime.fromtimestamp(at_s, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
