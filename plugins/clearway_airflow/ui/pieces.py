"""Small pieces of HTML that the pages share. Every value is escaped."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from clearway_airflow.ui.looking_again import AGAIN, SCRIPT

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem 2rem; color: #1d2733; background: #fff; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 1.8rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; margin: .6rem 0; } th, td { text-align: left; padding: .3rem .9rem .3rem 0;
vertical-align: top; border-bottom: 1px solid #e3e8ee; } th { font-weight: 600; color: #51606f; }
code { font-size: .85em; } .pass { color: #0a7d33; } .fail { color: #b3261e; } .inconclusive { color: #8a5a00; }
.error { color: #b3261e; font-weight: 600; } .quiet, figcaption { color: #51606f; } figure { margin: .6rem 0; }
figcaption, text { font-size: .8rem; } text { fill: currentColor; } polyline { fill: none; stroke: #2f6fab; }
.line { stroke-width: 2; } .edge { stroke-opacity: .45; } .bound { stroke: #b3261e; stroke-dasharray: 5 4; }
details, form p { margin: .3rem 0; } summary { cursor: pointer; }
@media (prefers-color-scheme: dark) { body { background: #14181d; color: #e3e8ee; } th, .quiet { color: #9fb0c0; }
th, td { border-color: #2b343d; } a { color: #8ab4f8; } .pass { color: #6fd08c; } .fail, .error { color: #ff8a80; }
.inconclusive { color: #ffca66; } polyline { stroke: #8ab4f8; } .bound { stroke: #ff8a80; } }
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
