"""What AWS itself says was spent, by the tags on all that calls of ours make: up to a day late, a cent per page."""

from dataclasses import dataclass
from datetime import date

from clearway.infra.aws.client import client, complete, explained
from clearway.infra.aws.tags import ENVIRONMENT, PRODUCT, STAGE

METRIC = "UnblendedCost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """By one stage of one product; either is "" for what carries no such tag. `cost`: before tax, in `currency`."""

    product: str
    stage: str
    cost: float
    currency: str


def spent(*, first: date, end: date, environment: str) -> tuple[Spent, ...]:
    """From `first` until before `end`, by all that carries the tag of `environment`; the same pair once per month.

    Raises: ConfigError without the right `ce:GetCostAndUsage`; Unavailable.
    """
    found: list[Spent] = []
    page: dict[str, str] = {}
    with explained("Cost Explorer"):
        while True:
            answer = complete(
                client("ce").get_cost_and_usage,
                "ResultsByTime",
                TimePeriod={"Start": first.isoformat(), "End": end.isoformat()},
                Granularity="MONTHLY",
                Metrics=[METRIC],
                Filter={"Tags": {"Key": ENVIRONMENT, "Values": [environment]}},
                GroupBy=[{"Type": "TAG", "Key": key} for key in (PRODUCT, STAGE)],
                **page,
            )
            for group in (group for month in answer["ResultsByTime"] for group in month["Groups"]):
                product, stage = (key.partition("$")[2] for key in group["Keys"])  # as in `clearway:stage$train`
                amount = group["Metrics"][METRIC]
                found.append(Spent(product=product, stage=stage, cost=float(amount["Amount"]), currency=amount["Unit"]))
            if not answer.get("NextPageToken"):
                return tuple(found)
            page = {"NextPageToken": answer["NextPageToken"]}
