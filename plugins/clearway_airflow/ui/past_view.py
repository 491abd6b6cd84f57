"""Past releases as HTML: all of a product, page by page, and one of them with what it was judged by. Pure."""

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from clearway.contracts.release_document import HistoryEntry
from clearway.contracts.rollout import Rollout
from clearway_airflow.ui.evidence_view import evidence_panel
from clearway_airflow.ui.pieces import code, digest, page, table, time, verdict
from clearway_airflow.ui.rollout_view import plan_line, said_panel


def endings_table(entries: Sequence[HistoryEntry], *, past: str) -> str:
    """How releases and orders ended, in the order given; each leads to its own page below `past`."""
    rows = [
        [
            time(e.at_s),
            verdict(e.outcome.value),
            f'<a href="{escape(address_of(e.release_id, past=past))}">{code(e.release_id)}</a>',
            digest(e.before),
            digest(e.after),
            escape(e.reason),
        ]
        for e in entries
    ]
    return table(["when (UTC)", "outcome", "release", "before", "after", "why"], rows)


def address_of(release_id: str, *, past: str) -> str:
    """The page of one release."""
    return f"{past}/{quote(release_id, safe='')}"


def releases_page(
    title: str,
    entries: Sequence[HistoryEntry],
    *,
    past: str,
    number: int,
    num_pages: int,
    num_all: int,
    story: str = "",
    costs: str = "",
) -> str:
    """One page of a product's releases, newest first.

    Args:
        past: address of this page, below which single releases lie.
        number: which page of `num_pages`, from 1.
        num_all: endings on all pages.
        story: address of what retraining policies would have done; "" if they were never replayed.
        costs: address of what releases cost.
    """
    steps = {"Newer": number - 1, "Older": number + 1, "Oldest": num_pages if num_pages > number + 1 else 0}
    links = [f'<a href="{escape(past)}?page={to}">{name}</a>' for name, to in steps.items() if 1 <= to <= num_pages]
    where = f'<span class="quiet">page {number} of {num_pages}, {num_all:,} releases and orders</span>'
    turn = f'<p class="turn">{"".join(links)}{where}</p>'
    found = endings_table(entries, past=past) if entries else "<p>No release has ended yet.</p>"
    told = f'<p><a href="{escape(story)}">Retraining policies over the past</a></p>' if story else ""
    told += f'<p><a href="{escape(costs)}">What releases cost</a></p>' if costs else ""
    return page(f"Releases of {title}", f"{turn}{found}{turn if entries else ''}{told}{_back()}")


def release_page(title: str, entry: HistoryEntry, rollout: Rollout | None, *, past: str) -> str:
    """One release or order: how it ended and why, and for a rollout that gathered evidence, all of it."""
    facts = [
        ["outcome", verdict(entry.outcome.value)],
        ["ended (UTC)", time(entry.at_s)],
        ["candidate", digest(entry.candidate)],
        ["champion", f"{digest(entry.before)} → {digest(entry.after)}"],
        ["why", escape(entry.reason)],
    ]
    if rollout is None:
        rest = '<p class="quiet">No evidence was gathered for it: proofs before and after the switch decided.</p>'
    else:
        facts += [["strategy", code(rollout.strategy)], ["plan, and how far it came", plan_line(rollout)]]
        rest = evidence_panel(rollout) + said_panel(rollout)
    link = f'<p><a href="{escape(past)}">All releases of {escape(title)}</a></p>'
    return page(f"{title}: {entry.release_id}", f"{table(['', ''], facts)}{rest}{link}{_back()}")


def _back() -> str:
    return '<p><a href="/clearway/serving">What serves now</a></p>'
