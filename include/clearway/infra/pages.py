"""Self-contained report pages: one HTML file, no script, nothing fetched, readable for years."""

import html
from collections.abc import Iterable, Sequence

from clearway.contracts.verdict import Check, Verdict

STYLE = """
:root{--ink:#1b2430;--soft:#5c6b7d;--line:#e1e7ee;--paper:#fff;--ground:#f5f7fa;
--pass:#18794e;--fail:#c4292b;--inconclusive:#a35200;--error:#7a2ea8;--blue:#2563a8;--orange:#d9730d;--grey:#8a97a6}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:14px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 20px 56px}
h1{font-size:22px;margin:0 0 2px}h2{font-size:16px;margin:0 0 10px}
p{margin:0 0 10px}.soft{color:var(--soft)}
.banner{border-left:6px solid var(--c);background:var(--paper);border-radius:8px;padding:18px 22px;margin-bottom:18px;
box-shadow:0 1px 2px rgba(20,30,50,.07)}
.banner .word{color:var(--c);font-weight:700;font-size:26px;letter-spacing:.02em;text-transform:uppercase}
.banner ul{margin:8px 0 0;padding-left:18px}
section{background:var(--paper);border-radius:8px;padding:18px 22px;margin-bottom:18px;
box-shadow:0 1px 2px rgba(20,30,50,.07)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(430px,100%),1fr));gap:0 18px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin-bottom:18px}
.tile{background:var(--paper);border-radius:8px;padding:12px 16px;box-shadow:0 1px 2px rgba(20,30,50,.07)}
.tile b{display:block;font-size:20px;white-space:nowrap;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:12px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--soft);font-weight:600;font-size:12px;
border-bottom:2px solid var(--line);padding:6px 10px 6px 0}
td{border-bottom:1px solid var(--line);padding:6px 10px 6px 0;vertical-align:top}
td.n,th.n{text-align:right}td.name{font-family:ui-monospace,Consolas,monospace;font-size:12.5px;overflow-wrap:anywhere}
.v{display:inline-block;border-radius:10px;padding:0 9px;font-size:12px;font-weight:600;color:#fff;background:var(--c)}
.v.dry{background:none;color:var(--c);border:1px solid var(--c)}
.pass{--c:var(--pass)}.fail{--c:var(--fail)}.inconclusive{--c:var(--inconclusive)}.error{--c:var(--error)}
details summary{cursor:pointer;color:var(--soft);margin:8px 0}
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.key{display:inline-block;width:18px;height:0;border-top:3px solid var(--c);vertical-align:middle;margin:0 6px 2px 14px}
code{font-size:12px;overflow-wrap:anywhere}
td:first-child code{overflow-wrap:normal;white-space:nowrap}
"""


LARGE = 1000.0


def text(value: object) -> str:
    """Any value as HTML text."""
    return html.escape(str(value))


def number(value: float | None, *, digits: int = 4) -> str:
    """A figure for people: whole thousands with separators, else `digits` significant; an en dash for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= LARGE else f"{value:.{digits}g}"


def page(*, title: str, verdict: Verdict, lead: str, reasons: Sequence[str] = (), body: Iterable[str] = ()) -> bytes:
    """The whole document: a banner with the verdict and its reasons, then `body`, which is HTML already."""
    listed = "".join(f"<li>{text(r)}</li>" for r in reasons)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main>"
        f'<div class="banner {verdict.value}"><h1>{text(title)}</h1>'
        f'<div class="word">{verdict.value}</div><p class="soft">{text(lead)}</p>'
        f"{f'<ul>{listed}</ul>' if listed else ''}</div>"
        f"{''.join(body)}</main></body></html>"
    ).encode()


def section(heading: str, *parts: str) -> str:
    """One card of the page; `parts` are HTML already."""
    return f"<section><h2>{text(heading)}</h2>{''.join(parts)}</section>"


def tiles(figures: Sequence[tuple[str, str]]) -> str:
    """A row of headline figures: (value, caption)."""
    cells = "".join(f'<div class="tile"><b>{text(v)}</b><span>{text(c)}</span></div>' for v, c in figures)
    return f'<div class="tiles">{cells}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Sequence[int] = ()) -> str:
    """A table whose cells are HTML already; columns in `numeric` are right-aligned."""
    marks = [' class="n"' if i in set(numeric) else "" for i in range(len(head))]
    top = "".join(f"<th{m}>{text(h)}</th>" for h, m in zip(head, marks, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{m}>{cell}</td>' for cell, m in zip(row, marks, strict=True))}</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def badge(check: Check) -> str:
    """The verdict of a check; hollow for a dry run, which is reported and never counted."""
    dry = "" if check.is_decisive else " dry"
    return f'<span class="v {check.verdict.value}{dry}">{check.verdict.value}</span>'


def checks_table(checks: Iterable[Check]) -> str:
    """Checks with value, bound and reason."""
    rows = (
        [f"<code>{text(c.name)}</code>", badge(c), number(c.value), number(c.bound), text(c.reason)] for c in checks
    )
    return table(("check", "verdict", "value", "bound", "reason"), rows, numeric=(2, 3))
