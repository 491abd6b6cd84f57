"""The account of policies as text for people."""

from typing import Any

from clearway.launch.report_table import MIN_WIDTH, new_console, new_table, text_of

WHOLE = "all"


def render_policies(result: dict[str, Any]) -> str:
    """What each policy did and was worth, then quality by month, then where the page is."""
    console = new_console(MIN_WIDTH)
    found = result["policies"]
    console.print(_worth(found))
    for name, field in (("AUC", "auc"), ("Log-loss", "log_loss"), ("Brier score", "brier")):
        table = new_table(f"{name} by month")
        months = sorted({month for policy in found for month in policy["months"]})
        for head in ("policy", *months, WHOLE):
            table.add_column(head, justify="left" if head == "policy" else "right", no_wrap=True)
        for policy in found:
            figures = [policy["months"].get(month) for month in months] + [policy["whole"]]
            table.add_row(policy["name"], *(_figure(f[field] if f else None) for f in figures))
        console.print(table)
    console.print(f"The year's story: {result['page']}", markup=False, soft_wrap=True)
    return text_of(console)


def _worth(found: list[dict[str, Any]]) -> Any:
    table = new_table("Retraining policies")
    heads = ("retrained", "rows trained", "gain over never (95 %)", "of weekly's", "random better", "alarms", "delays")
    for head in ("policy", *heads):
        table.add_column(head, justify="left" if head == "policy" else "right", no_wrap=True)
    for policy in found:
        gain, low, high = policy["gain"]
        beaten = policy["beaten_by"]
        table.add_row(
            policy["name"],
            str(len(policy["retrained"])),
            f"{policy['rows_trained']:,}",
            f"{gain:.4f} [{low:.4f}, {high:.4f}]",
            f"{policy['share_of_gain']:.0%}",
            "-" if beaten is None else f"{beaten:.0%}",
            str(sum(policy["num_alarms"].values())) if policy["num_alarms"] else "-",
            ", ".join(str(d) for d in policy["delays"]) or "-",
        )
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
