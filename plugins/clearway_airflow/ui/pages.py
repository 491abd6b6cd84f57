"""Data to HTML. Pure; every value is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

from clearway.contracts.release_document import ReleaseDocument

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem 2rem; color: #1d2733; background: #fff; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 1.8rem; }
table { border-collapse: collapse; margin: .6rem 0; } th, td { text-align: left; padding: .3rem .9rem .3rem 0;
vertical-align: top; border-bottom: 1px solid #e3e8ee; } th { font-weight: 600; color: #51606f; }
code { font-size: .85em; } .pass { color: #0a7d33; } .fail { color: #b3261e; } .inconclusive { color: #8a5a00; }
.error { color: #b3261e; font-weight: 600; } .quiet { color: #51606f; }
@media (prefers-color-scheme: dark) { body { background: #14181d; color: #e3e8ee; } th, .quiet { color: #9fb0c0; }
th, td { border-color: #2b343d; } a { color: #8ab4f8; } .pass { color: #6fd08c; } .fail, .error { color: #ff8a80; }
.inconclusive { color: #ffca66; } }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One product: its release document, and what the live endpoint says of itself.

    Args:
        weights_pct: digest → share of traffic in percent; None if the endpoint does not answer.
    """

    title: str
    document: ReleaseDocument
    weights_pct: Mapping[str, float] | None


def page(title: str, body: str) -> str:
    """A whole document."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>"
    )


def standings_page(standings: Sequence[Standing]) -> str:
    """Who serves what, and how it came to that, newest first."""
    body = "".join(_standing(standing) for standing in standings) or "<p>No product yet.</p>"
    return page("What serves now", body)


def run_page(run: str, stages: Sequence[tuple[str, Mapping[str, Any]]], *, base: str) -> str:
    """A run's stages with their verdicts and reports.

    Args:
        stages: task id and its Outputs as JSON, in order.
        base: address of this page, below which the reports lie.
    """
    if not stages:
        return page(run, '<p class="quiet">No stage of this run has finished yet.</p>')
    rows = [
        [_code(name), _verdict(outputs), escape(str(outputs.get("reason", ""))), _report(base, name, outputs)]
        for name, outputs in stages
    ]
    return page(run, table(["stage", "verdict", "reason", "report"], rows))


def table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{lines}</table>"


def _standing(standing: Standing) -> str:
    document = standing.document
    champion, previous, candidate = document.champion, document.previous, document.candidate
    facts = [
        ["champion", _version(champion)],
        ["way back", _version(previous)],
        ["candidate", _version(candidate)],
        ["phase", f"{_code(document.phase.value)}, epoch {document.epoch}"],
        ["live traffic", _traffic(standing.weights_pct)],
    ]
    past = [
        [
            _time(e.at_s),
            _code(e.outcome.value),
            _code(e.release_id),
            _digest(e.before),
            _digest(e.after),
            escape(e.reason),
        ]
        for e in reversed(document.history)
    ]
    history = table(["when (UTC)", "outcome", "release", "before", "after", "why"], past) if past else ""
    return f"<h2>{escape(standing.title)}</h2>{table(['', ''], facts)}{history}"


def _traffic(weights_pct: Mapping[str, float] | None) -> str:
    if weights_pct is None:
        return '<span class="error">the endpoint does not answer</span>'
    if not weights_pct:
        return '<span class="quiet">nothing serves</span>'
    return ", ".join(f"{_digest(digest)} {weight:g} %" for digest, weight in sorted(weights_pct.items()))


def _version(version: Any) -> str:
    if version is None:
        return '<span class="quiet">none</span>'
    return f"{_digest(version.digest)} from {_code(version.release_id)}"


def _report(base: str, name: str, outputs: Mapping[str, Any]) -> str:
    uri = str(outputs.get("report_uri") or "")
    file = uri.rpartition("/")[2]
    return f'<a href="{escape(base)}/{escape(name)}/{escape(file)}">open</a>' if file.endswith(".html") else ""


def _verdict(outputs: Mapping[str, Any]) -> str:
    verdict = escape(str(outputs.get("verdict", "")))
    return f'<span class="{verdict}">{verdict}</span>'


def _digest(digest: str | None) -> str:
    return (
        f'<code title="{escape(digest)}">{escape(digest[:12])}</code>' if digest else '<span class="quiet">none</span>'
    )


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
