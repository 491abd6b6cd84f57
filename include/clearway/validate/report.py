"""The page people open: the verdict, what failed, and a link to the suite's own Data Docs."""

from collections.abc import Sequence

from clearway.contracts.verdict import Check, Judgement, Verdict
from clearway.infra.pages import checks_table, page, section, tiles
from clearway.validate.scan import Scan

DATA_DOCS = "data-docs.html"


def render(judgement: Judgement, scan: Scan, *, title: str, dataset_digest: str, has_data_docs: bool) -> bytes:
    """HTML bytes."""
    own = [c for c in judgement.checks if c.is_decisive and not c.name.startswith(("expect[", "suite_"))]
    suite = [c for c in judgement.checks if c.name.startswith(("expect[", "suite_"))]
    notes = [c for c in judgement.checks if not c.is_decisive]
    docs = f'<p><a href="{DATA_DOCS}">Great Expectations Data Docs of this run</a></p>' if has_data_docs else ""
    skipped = "<p>Not run: the own gate failed first, and the suite would only repeat it.</p>"
    body = [
        tiles(_figures(judgement.checks, scan)),
        section("Great Expectations suite", docs, checks_table(suite) if suite else skipped),
        section("Own gate", _own(own)),
        section("Compared with the champion's training data (reported, not decisive)", checks_table(notes)),
    ]
    return page(
        title=title,
        verdict=judgement.verdict,
        lead=f"Dataset {dataset_digest}",
        reasons=judgement.reasons,
        body=body,
    )


def _figures(checks: Sequence[Check], scan: Scan) -> list[tuple[str, str]]:
    passed = sum(c.verdict is Verdict.PASS for c in checks if c.is_decisive)
    decisive = sum(c.is_decisive for c in checks)
    rate = f"{scan.num_positive / scan.num_labelled:.1%}" if scan.num_labelled else "–"
    span = f"{scan.first:%d %b} – {scan.last:%d %b %y}" if scan.first and scan.last else "–"
    return [
        (f"{passed} / {decisive}", "checks passed"),
        (f"{scan.num_rows:,}", "rows"),
        (f"{len(scan.columns)}", "columns"),
        (f"{scan.num_labelled:,}", "rows with a label"),
        (rate, "labels that are 1"),
        (span, "days (UTC)"),
    ]


def _own(checks: Sequence[Check]) -> str:
    """Rules first; the many per-column ones folded away unless they failed."""
    per_column = [c for c in checks if "[" in c.name]
    shown = [c for c in checks if "[" not in c.name] + [c for c in per_column if c.verdict is not Verdict.PASS]
    folded = f"<details><summary>{len(per_column)} checks per column</summary>{checks_table(per_column)}</details>"
    return checks_table(shown) + folded
