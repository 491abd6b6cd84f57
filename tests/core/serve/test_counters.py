"""Metrics: counts are kept apart by status, model and probe, and read as Prometheus text."""

from clearway.serve.counters import GONE, LATENCY_BOUNDS_S, Counters, parse_metric


def render(counters):
    return counters.render(gauges={"epoch": 3}, totals={"lost_rows_total": 2}, weights={"a": 12.5}).decode()


def test_requests_rows_and_probes_are_counted_apart():
    counters = Counters()
    counters.count(200, "a", duration_s=0.001, is_probe=False, scores=[0.5] * 5)
    counters.count(200, "a", duration_s=0.001, is_probe=True, scores=[0.5] * 7)
    counters.count(422, "", duration_s=0.001, is_probe=False)
    text = render(counters)
    requests = dict(parse_metric(text, "clearway_serve_requests_total"))
    assert requests == {
        'code="200",model_digest="a",probe="false"': 1,
        'code="200",model_digest="a",probe="true"': 1,
        'code="422",model_digest="",probe="false"': 1,
    }
    assert dict(parse_metric(text, "clearway_serve_rows_total")) == {'model_digest="a"': 5}
    assert dict(parse_metric(text, "clearway_serve_traffic_weight_pct")) == {'model_digest="a"': 12.5}
    assert dict(parse_metric(text, "clearway_serve_epoch")) == {"": 3}
    assert dict(parse_metric(text, "clearway_serve_lost_rows_total")) == {"": 2}


def test_the_histogram_is_cumulative_and_complete():
    counters = Counters()
    for duration_s in (0.0001, 0.00025, 0.003, 99.0):
        counters.count(200, "a", duration_s=duration_s, is_probe=False)
    buckets = dict(parse_metric(render(counters), "clearway_serve_request_seconds_bucket"))
    values = list(buckets.values())
    assert values == sorted(values)
    assert len(values) == len(LATENCY_BOUNDS_S) + 1
    assert (buckets['le="0.00025"'], buckets['le="10.0"'], buckets['le="+Inf"']) == (2, 3, 4)
    assert dict(parse_metric(render(counters), "clearway_serve_request_seconds_count")) == {"": 4}


def test_every_sample_belongs_to_a_declared_type():
    counters = Counters()
    counters.count(200, "a", duration_s=0.1, is_probe=False)
    lines = render(counters).splitlines()
    declared = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    for line in lines:
        if not line.startswith("#"):
            name = line.partition("{")[0].partition(" ")[0]
            base = name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
            assert {name, base} & declared, line


def test_a_version_is_judged_by_callers_only_and_not_by_those_who_hung_up():
    counters = Counters()
    counters.count(200, "a", duration_s=0.001, is_probe=False, scores=[0.25, 0.75])
    counters.count(422, "a", duration_s=0.2, is_probe=False)
    counters.count(GONE, "a", duration_s=5.0, is_probe=False)
    counters.count(200, "a", duration_s=9.0, is_probe=True, scores=[1.0])
    arm = counters.arms["a"].counts()
    assert (arm.num_requests, arm.num_errors, arm.num_scores) == (2, 1, 1)
    assert (arm.score_sum, arm.score_square_sum) == (0.5, 0.25)  # a request is one observation: its mean
    assert sum(arm.latencies) == 3


def test_what_another_version_answered_is_an_error_of_the_chosen_one_alone():
    counters = Counters()
    counters.count(200, "stable", duration_s=0.001, is_probe=False, scores=[0.5, 0.5], instead_of="candidate")
    arm = counters.arms["candidate"].counts()
    assert (arm.num_requests, arm.num_errors, arm.num_scores, sum(arm.latencies)) == (1, 1, 0, 1)
    stable = counters.arms["stable"].counts()
    assert (stable.num_requests, stable.num_errors, stable.num_scores, sum(stable.latencies)) == (0, 0, 0, 0)
    assert dict(parse_metric(render(counters), "clearway_serve_rows_total")) == {'model_digest="stable"': 2}


def test_a_callers_fault_is_a_request_and_nobodys_error():
    counters = Counters()
    counters.count(422, "a", duration_s=0.001, is_probe=False, is_callers_fault=True)
    arm = counters.arms["a"].counts()
    assert (arm.num_requests, arm.num_errors, arm.num_scores) == (1, 0, 0)
