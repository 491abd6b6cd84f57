"""Data to HTML. Pure; every value is escaped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from clearway.contracts.release_document import ReleaseDocument
from clearway_airflow.ui.past_view import endings_table
from clearway_airflow.ui.pieces import code, digest, page, table, verdict
from clearway_airflow.ui.rollout_view import order_forms, rollout_panel

NUM_NEWEST = 8  # endings beside what serves now; all of them have a page of their own
RELEASE_DAG = "_release"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One product: its release document, and what the live endpoint says of itself.

    Args:
        weights_pct: digest → share of traffic in percent; None if the endpoint does not answer.
    """

    title: str
    document: ReleaseDocument
    weights_pct: Mapping[str, float] | None


def standings_page(standings: Sequence[Standing], *, base: str, past: str, next_page: str = "") -> str:
    """Who serves what, and how it came to that, newest first; it follows a rollout under way by itself.

    Args:
        base: address below which orders are taken.
        past: address below which past releases are shown.
        next_page: where further products are; "" if these are all.
    """
    body = "".join(_standing(standing, base=base, past=past) for standing in standings) or "<p>No product yet.</p>"
    more = f'<p><a href="{escape(next_page)}">More products</a></p>' if next_page else ""
    return page("What serves now", body + more, is_live=any(standing.document.rollout for standing in standings))


def run_page(run: str, stages: Sequence[tuple[str, Mapping[str, Any]]], *, base: str) -> str:
    """A run's stages with their verdicts and reports.

    Args:
        stages: task id and its Outputs as JSON, in order.
        base: address of this page, below which the reports lie.
    """
    if not stages:
        return page(run, '<p class="quiet">No stage of this run has finished yet.</p>')
    rows = [
        [
            code(name),
            verdict(str(outputs.get("verdict", ""))),
            escape(str(outputs.get("reason", ""))),
            _report(base, name, outputs),
        ]
        for name, outputs in stages
    ]
    return page(run, table(["stage", "verdict", "reason", "report"], rows))


def _standing(standing: Standing, *, base: str, past: str) -> str:
    document = standing.document
    champion, previous, candidate = document.champion, document.previous, document.candidate
    facts = [
        ["champion", _version(champion)],
        ["way back", _version(previous)],
        ["candidate", _version(candidate)],
        ["phase", f"{code(document.phase.value)}, epoch {document.epoch}"],
        ["live traffic", _traffic(standing.weights_pct)],
    ]
    name, here = escape(document.product), f"{past}/{document.product}{RELEASE_DAG}"
    newest = list(reversed(document.history))[:NUM_NEWEST]
    history = endings_table(newest, past=here) if newest else ""
    if newest:
        history += f'<p><a href="{escape(here)}">All releases</a></p>'
    return (
        f"<h2>{escape(standing.title)}</h2>"
        f'<section id="now-{name}" data-live="now">{table(["", ""], facts)}{rollout_panel(document)}</section>'
        f'<section id="orders-{name}" data-live="orders">{order_forms(document, base=base)}</section>'
        f'<section id="past-{name}" data-live="past">{history}</section>'
    )


def _traffic(weights_pct: Mapping[str, float] | None) -> str:
    if weights_pct is None:
        return '<span class="error">the endpoint does not answer</span>'
    if not weights_pct:
        return '<span class="quiet">nothing serves</span>'
    return ", ".join(f"{digest(name)} {weight:g} %" for name, weight in sorted(weights_pct.items()))


def _version(version: Any) -> str:
    if version is None:
        return '<span class="quiet">none</span>'
    return f"{digest(version.digest)} from {code(version.release_id)}"


def _report(base: str, name: str, outputs: Mapping[str, Any]) -> str:
    uri = str(outputs.get("report_uri") or "")
    file = uri.rpartition("/")[2]
    return f'<a href="{escape(base)}/{escape(name)}/{escape(file)}">open</a>' if file.endswith(".html") else ""
