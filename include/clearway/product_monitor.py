"""The part of product.yaml that says when a product has changed, and when that adds up to a retraining."""

from enum import StrEnum

import pydantic

from clearway.product_part import Part, PositiveShare, Share


class Signal(StrEnum):
    """What can speak for a retraining: inputs; scores beside labels, on average and row by row; what texts cost a
    language model; time; labelled rows; a person."""

    DRIFT = "drift"
    CALIBRATION = "calibration"
    LOSS = "loss"
    SURPRISE = "surprise"
    TIME = "time"
    VOLUME = "volume"
    MANUAL = "manual"


class CountedBy(StrEnum):
    """What counts a batch: this machine, piece by piece, or the product's Spark engine, where the rows lie."""

    PIECES = "pieces"
    SPARK = "spark"


class DriftWeights(StrEnum):
    """What a feature counts in the drift share: its place and its effect on predictions, or all the same."""

    EFFECT = "effect"
    EQUAL = "equal"


class Override(StrEnum):
    """What a request by hand may ask to set aside: the cool-down, both budgets, lost or jumped input."""

    COOLDOWN = "cooldown"
    BUDGET = "budget"
    INPUT = "input"


class Monitor(Part):
    """Drift and performance limits, and when they add up to a retraining.

    `share_over_limit`: share of features over their own limit that makes a window drifted; limits per feature are
    the 95th percentile of leave-one-batch-out distances inside the training period. `drift_weights`: whether features
    count there by their effect on the model's predictions, or all the same. `calibration_gap`: |mean label
    - mean score| on arrived labels. `loss_excess`: log-loss on them beyond what the scores themselves promise,
    nats. `surprise`: of language models, which know no label: bits per byte of a batch beyond held-out texts, as a
    multiple of what such a batch may by chance. `clear_at`: a signal that spoke goes on speaking until it falls to
    this share of its limit; 1 is no hysteresis. `persistence`: at least k of the last n windows. `every_batches`,
    `new_rows`: when time and volume speak: batches since the champion's first, labelled rows since then. `triggers`:
    groups of signals, of which one group must speak whole; `manual` speaks while a request by hand is answered.
    `may_override`: what such a request may set aside, if it says so itself. `max_retrains`, `max_retrains_monthly`:
    per 365 and per 30 days. `sudden_excess`: a feature that was near its limit and in the next batch is this many
    times beyond it is held for a person, as is one whose values are suddenly not those of training, and with it every
    retraining; 0: never. `label_patience`: batches without enough labels after which quiet inputs are no longer called
    fine. `false_discovery_rate`: of features and windows reported as changed. `counted_by`: what makes the counts of a
    batch. `ignore`: calendar-like columns left out of the alarm.
    """

    share_over_limit: Share = 0.5
    drift_weights: DriftWeights = DriftWeights.EFFECT
    calibration_gap: PositiveShare = 0.05
    loss_excess: float = pydantic.Field(0.1, ge=0)
    surprise: float = pydantic.Field(1.0, ge=0)
    clear_at: Share = 1.0
    persistence: tuple[int, int] = (2, 2)
    every_batches: int = pydantic.Field(7, ge=1)
    new_rows: int = pydantic.Field(100_000, ge=1)
    triggers: tuple[tuple[Signal, ...], ...] = (
        (Signal.DRIFT,),
        (Signal.CALIBRATION,),
        (Signal.LOSS,),
        (Signal.SURPRISE,),
        (Signal.MANUAL,),
    )
    may_override: tuple[Override, ...] = tuple(Override)
    cooldown_batches: int = pydantic.Field(4, ge=0)
    max_retrains: int = pydantic.Field(12, ge=0)
    max_retrains_monthly: int = pydantic.Field(2, ge=0)
    sudden_excess: float = pydantic.Field(10.0, ge=0)
    label_patience: int = pydantic.Field(3, ge=1)
    false_discovery_rate: float = pydantic.Field(0.1, gt=0, lt=1)
    min_rows: int = pydantic.Field(200, ge=1)
    ignore: tuple[str, ...] = ()
    counted_by: CountedBy = CountedBy.PIECES
    report_rows: int = pydantic.Field(2_000, ge=100)

    @pydantic.field_validator("persistence")
    @classmethod
    def _k_of_n(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1]:
            raise ValueError(f"persistence {value} must be k of n with 1 <= k <= n")
        return value

    @pydantic.field_validator("triggers")
    @classmethod
    def _groups_hold_something(cls, value: tuple[tuple[Signal, ...], ...]) -> tuple[tuple[Signal, ...], ...]:
        for group in value:
            if not group or len(set(group)) < len(group):
                raise ValueError(f"trigger group {[t.value for t in group]} must name at least one signal, each once")
        return value
