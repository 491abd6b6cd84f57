"""Pictures are well-formed, self-contained and stay small however many points go in."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from clearway.evaluate import plots
from clearway.evaluate.evidence import CANDIDATE, CHAMPION, LINE, TREES, Holdout, gather
from clearway.evaluate.margins import Margins
from clearway.infra.charts import MAX_POINTS, Axes, bars, chart, line, thinned, ticks

UNIT = Axes(x=(0, 1), y=(0, 2), x_label="x", y_label="y", x_ticks=ticks(0, 1), y_ticks=ticks(0, 2))


def _holdout(num_rows: int = 4_000) -> Holdout:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.02, 0.8, num_rows)
    labels = (rng.random(num_rows) < truth).astype(float)
    scores = {
        name: np.clip(truth + rng.normal(0, spread, num_rows), 0.001, 0.999)
        for name, spread in ((CANDIDATE, 0.05), (CHAMPION, 0.1), (TREES, 0.07), (LINE, 0.2))
    }
    return Holdout(
        labels=labels,
        days=np.sort(rng.integers(15_700, 15_714, num_rows)),
        slices={},
        base_rate=0.4,
        scores=scores,
        is_new_to_champion=np.ones(num_rows, bool),
    )


def _svgs(html: str) -> list[ET.Element]:
    return [ET.fromstring(s) for s in re.findall(r"<svg.*?</svg>", html, re.S)]  # noqa: S314 - our own text


def test_values_land_where_the_axes_say() -> None:
    assert UNIT.px(0) < UNIT.px(1)
    assert UNIT.py(0) > UNIT.py(2), "y grows upwards"
    svg = chart(UNIT, line(UNIT, [0, 1], [0, 2], color="#000"), title="t")
    points = ET.fromstring(svg).find("polyline").get("points")  # noqa: S314
    assert points == f"{UNIT.px(0):.1f},{UNIT.py(0):.1f} {UNIT.px(1):.1f},{UNIT.py(2):.1f}"


def test_long_curves_keep_their_ends_and_lose_their_length() -> None:
    found = thinned(np.arange(100_000.0))
    assert found.size == MAX_POINTS
    assert (found[0], found[-1]) == (0.0, 99_999.0)


def test_bars_stand_on_the_axis() -> None:
    rect = ET.fromstring(f"<g>{bars(UNIT, [0, 0.5, 1], [1, 2], color='#000')}</g>").findall(".//rect")[1]  # noqa: S314
    assert float(rect.get("y")) == pytest.approx(UNIT.py(2), abs=0.1)
    assert float(rect.get("y")) + float(rect.get("height")) == pytest.approx(UNIT.py(0), abs=0.1)


def test_every_picture_of_the_report_is_drawn_from_all_models() -> None:
    holdout = _holdout()
    evidence = gather(
        holdout,
        num_resamples=100,
        confidence=0.95,
        min_slice=(100, 20),
        min_days=5,
        make_rng=lambda _: np.random.default_rng(0),
    )
    margins = Margins(
        skill_floor=0.05,
        logloss=0.01,
        auc=0.02,
        line_slack=0.01,
        slice_auc=0.1,
        slice_calibration=0.1,
        slice_logloss=0.03,
    )
    pictures = [
        plots.roc_curves(holdout),
        plots.calibration(holdout),
        plots.score_histogram(holdout),
        plots.daily_losses(holdout),
        plots.differences(evidence, margins),
    ]
    html = "".join(pictures)
    assert len(_svgs(html)) == 6
    assert "nan" not in html
    assert len(html) < 100_000
    for word in ("candidate", "champion", "boosted trees", "logistic regression"):
        assert word in html
