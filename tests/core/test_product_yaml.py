import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from clearway.contracts.errors import ConfigError
from clearway.product import LoadedProduct
from clearway.product_yaml import find_product, list_products, load_product, parse_product

# The smallest product there is; each error case below changes one thing in it.
SMALLEST = """\
name: tides
title: High water
description: Is the next tide higher than two metres?
owners: [harbour]
risk_tier: low
source:
  kind: files
  uri: file:///data
  format: csv
  files:
    tides: "{batch_id}.csv"
tables:
  tides:
    time: at
    key: [id]
    columns:
      id: string
      at: timestamp
      level: float
      is_high: int
batch:
  every: day
  first: 2020-01-01
label:
  table: tides
  column: is_high
features:
  function: features.py:build
  key: id
  time: at
  lookback_days: 2
  numeric: [level]
validate:
  expectations:
    - expect: column_values_to_not_be_null
      args: {column: level}
gates:
  auc_floor: 0.6
  auc_ceiling: 0.99
release:
  first_end: 2020-03-01
"""
PATH = Path("include/products/tides/product.yaml")


def changed(old: str, new: str) -> bytes:
    assert SMALLEST.count(old) == 1, f"{old!r} must name one place"
    return SMALLEST.replace(old, new).encode()


def test_the_smallest_product_is_accepted_and_filled_with_defaults() -> None:
    product = parse_product(SMALLEST.encode(), path=PATH)
    assert product.name == "tides"
    assert product.features.columns == ("level",)
    assert product.model.num_members == 4
    assert product.functions == ("features.py:build",)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("risk_tier: low", "risk_tier: lo", "5: risk_tier is \"lo\"; allowed: 'low', 'medium' or 'high'"),
        ("owners: [harbour]", "owners: []", "4: owners is []; allowed: have at least 1 item, not 0"),
        ("owners: [harbour]", "owners: harbour", '4: owners is "harbour"; allowed: a valid list'),
        ("title: High water\n", "", "1: title is missing; add it"),
        (
            "  lookback_days: 2",
            "  lookback_dayz: 2",
            "27: features.lookback_days is missing; add it\n"
            "include/products/tides/product.yaml:31: features.lookback_dayz is no known field; "
            "did you mean 'lookback_days'? allowed: ['categorical', 'deny', 'function', 'key', 'lead_hours', "
            "'lookback_days', 'numeric', 'slices', 'text', 'time']",
        ),
        (
            "  lookback_days: 2",
            "  lookback_days: -2",
            "31: features.lookback_days is -2; allowed: greater than or equal to 0",
        ),
        ("  lookback_days: 2", '  lookback_days: "2"', '31: features.lookback_days is "2"; allowed: a valid integer'),
        ("  lookback_days: 2", "  lookback_days: true", "31: features.lookback_days is true; allowed: a valid integer"),
        (
            "      level: float",
            "      level: decimal",
            "19: tables.tides.columns.level is \"decimal\"; allowed: 'string',",
        ),
        ("  every: day", "  every: hour", "22: batch.every is \"hour\"; allowed: 'day', 'week', 'month' or 'quarter'"),
        ("first: 2020-01-01", "first: someday", "23: batch.first: 'someday' is no instant; allowed: 2013-01-31 or"),
        ("first: 2020-01-01", "first: 2020-01-01T05:00", "23: batch.first: 2020-01-01T05:00:00+00:00 is not the start"),
        ("  kind: files", "  kind: ftp", "6: source is {"),
        ("  uri: file:///data", "  url: file:///data", "6: source.uri is missing; add it"),
        ("  uri: file:///data", "  url: file:///data", "8: source.url is no known field; did you mean 'uri'?"),
        (
            "      args: {column: level}",
            "      arg: {column: level}",
            "36: validate.expectations.0.arg is no known field",
        ),
        (
            "  column: is_high",
            "  column: was_high",
            "26: label.column is 'was_high'; allowed: one of the columns of 'tides': ['at', 'id', 'is_high', 'level']",
        ),
        ("    time: at\n", "    time: when\n", "13: tables.tides: time, key or events name columns ['when']"),
        ("  tides:\n    time", "  Tides:\n    time", '13: tables.Tides is {"time": "at"'),
        ("name: tides", "name: Tides!", '1: name is "Tides!"; allowed: match pattern'),
        ("title: High water", "title: High water\ntitle: Low water", "3: has key 'title' twice, first on line 2"),
        ("title: High water", "title: !!binary aGk=", "2: has tag"),
        ("  auc_floor: 0.6", "  auc_floor: .nan", "38: has gates.auc_floor = .nan; allowed: finite numbers"),
        (
            "      at: timestamp",
            "      at: string",
            "18: tables.tides.columns.at is 'string', and rows are placed in time",
        ),
        (
            "      is_high: int",
            "      is_high: string",
            "20: tables.tides.columns.is_high is 'string', and a label is 0",
        ),
        ('    tides: "{batch', '    tide: "{batch', "11: source.files.tide is no table; allowed: ['tides']"),
        ('    tides: "{batch', '    tide: "{batch', "10: source.files has no file for table 'tides'; add one"),
        (
            "{batch_id}.csv",
            "{date}.csv",
            "10: source.files: '{date}.csv' of 'tides' is no file name; allowed in braces",
        ),
        ("{batch_id}.csv", "{batch_id.csv", "10: source.files: '{batch_id.csv' of 'tides' is no file name"),
        ("{batch_id}.csv", "../{batch_id}.csv", "10: source.files: '../{batch_id}.csv' of 'tides' leaves source.uri"),
        ("uri: file:///data", "uri: gs://data", "8: source.uri: 'gs://data' cannot be opened; allowed: a folder"),
        ("uri: file:///data", "uri: file://data", "8: source.uri: 'file://data' cannot be opened"),
        ("uri: file:///data", "uri: ~/data", "8: source.uri: '~/data' cannot be opened"),
        ("numeric: [level]", "numeric: []", "32: features.numeric is [], and so is categorical; name at least one"),
        (
            "first_end: 2020-03-01",
            "first_end: 2019-03-01",
            "41: release.first_end is 2019-03-01, before the end of the",
        ),
        ("auc_ceiling: 0.99", "auc_ceiling: 0.5", "37: gates: auc_floor 0.6 is not below auc_ceiling 0.5, so no model"),
        ("  auc_floor: 0.6", "  auc_floor: 60", "38: gates.auc_floor is 60; allowed: less than or equal to 1"),
        ("  table: tides", "  table: tide", "25: label.table is 'tide', which is not in tables; allowed: ['tides']"),
        (
            "numeric: [level]",
            "numeric: [is_high]",
            "32: features.numeric holds 'is_high', the label, which the model is",
        ),
        ("numeric: [level]", "numeric: [id]", "32: features.numeric holds 'id', the key of a row"),
        (
            "numeric: [level]",
            "numeric: [level]\n  categorical: [at]",
            "33: features.categorical holds 'at', the time of a",
        ),
        (
            "numeric: [level]",
            "numeric: [level]\n  categorical: [sea]\n  slices: [sea, sea]",
            "27: features: slices ['sea', 'sea'] name a column twice",
        ),
        (
            "lookback_days: 2",
            "lookback_days: 60",
            "31: features.lookback_days is 60, and the first release has 60 days",
        ),
        (
            "lookback_days: 2",
            "lookback_days: 2\n  lead_hours: 1e9",
            "32: features.lead_hours is 1000000000.0; allowed: less",
        ),
        (
            "column: level",
            "column: levle",
            "36: validate.expectations.0.args.column is 'levle', which is no column of a",
        ),
        (
            "args: {column: level}",
            "args: {column: level, min_value: 5, max_value: 1}",
            "36: validate.expectations.0.args has min_value 5 above max_value 1, so nothing passes",
        ),
        (
            "validate:",
            "validate:\n  completeness: {levle: 0.5}",
            "34: validate.completeness.levle is a bound for no column",
        ),
        ("    key: [id]", "    key: [id, id]", "13: tables.tides: key ['id', 'id'] names a column twice"),
        (
            "tables:",
            "tables:\n  ports:\n    delay_days: 1\n    columns: {id: string}",
            "13: tables.ports: delay_days, is_planned and events are about rows in time, and time is not set; set it",
        ),
        (
            "first: 2020-01-01",
            "first: 2020-01-01\n  last: 2019-12-01",
            "24: batch.last is 2019-12-01, before batch.first",
        ),
        (
            "first: 2020-01-01",
            "first: 2020-01-01\n  last: 2020-02-01",
            "42: release.first_end is 2020-03-01, after the end of the last batch; allowed: 2020-02-02 or earlier",
        ),
        (
            "first_end: 2020-03-01",
            "first_end: 2020-03-01T06:00",
            "41: release.first_end is 2020-03-01T06:00:00+00:00, inside a day; allowed: 2020-03-01 or 2020-03-02",
        ),
        (
            "first_end: 2020-03-01",
            "first_end: 2020-03-01\n  holdout_days: 60",
            "42: release.holdout_days is 60, and of the 60 days before release.first_end labels are known for 60, so n",
        ),
        (
            "first_end: 2020-03-01",
            "first_end: 2020-03-01\n  schedule: every monday",
            "42: release.schedule is 'every monday'; allowed: five fields of cron, as '0 6 * * 1', or one of @hourly",
        ),
        ("auc_floor: 0.6", "auc_floor: 0.4", "37: gates: auc_floor 0.4 is below 0.5, which guessing reaches"),
        ("auc_floor: 0.6", "auc_floor: 0.6\n  ece_max: 0", "39: gates.ece_max is 0; allowed: greater than 0"),
        (
            "auc_floor: 0.6",
            "auc_floor: 0.6\n  min_slice_positives: 501",
            "37: gates: min_slice_positives 501 is above min_slice_rows 500",
        ),
        (
            "release:",
            "monitor: {ignore: [tide]}\nrelease:",
            "40: monitor.ignore holds 'tide', which is no feature; allowed",
        ),
        (
            "release:",
            "monitor: {ignore: [level]}\nrelease:",
            "40: monitor.ignore holds every feature, so no drift is ever",
        ),
        (
            "release:",
            "monitor: {calibration_gap: 0}\nrelease:",
            "40: monitor.calibration_gap is 0; allowed: greater than 0",
        ),
        ("release:", "model: {seed: -1}\nrelease:", "40: model.seed is -1; allowed: greater than or equal to 0"),
        ("release:", "model: {hidden: [0]}\nrelease:", "40: model.hidden.0 is 0; allowed: greater than or equal to 1"),
        ("release:", "model: {lr: 3}\nrelease:", "40: model.lr is 3; allowed: less than or equal to 1"),
        (
            "release:",
            "model: {teacher: {trees: 9}}\nrelease:",
            "40: model.teacher.trees is no known field; did you mean",
        ),
        (
            "release:",
            "rollout: {strategy: canari}\nrelease:",
            "40: rollout.strategy is \"canari\"; allowed: 'blue_green'",
        ),
        (
            "release:",
            "rollout: {strategy: [shadow, canari]}\nrelease:",
            "40: rollout.strategy.1 is \"canari\"; allowed: 'blue_green', 'canary'",
        ),
        (
            "release:",
            "rollout: {shadow: {slices: {sea: [a]}}}\nrelease:",
            "40: rollout.shadow.slices.sea is in no request",
        ),
        (
            "release:",
            "rollout: {shadow: {slices: {level: []}}}\nrelease:",
            "40: rollout.shadow.slices.level is []; allowed",
        ),
        (
            "release:",
            "rollout: {min_step_s: 60, max_step_s: 60}\nrelease:",
            "40: rollout: min_step_s 60 is not below max_step_s 60, so every step ends as a question for a person",
        ),
        ("owners: [harbour]", 'owners: [""]', '4: owners.0 is ""; allowed: have at least 1 character'),
    ],
)
def test_a_mistake_is_told_with_file_line_field_value_and_allowed(old: str, new: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_product(changed(old, new), path=PATH)
    assert f"{PATH}:{expected}" in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    text = SMALLEST.replace("risk_tier: low", "risk_tier: lo").replace("every: day", "every: hour")
    with pytest.raises(ConfigError) as caught:
        parse_product(text.encode(), path=PATH)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [f"{PATH}:5", f"{PATH}:22"]


@pytest.mark.parametrize(("text", "found"), [("", "nothing"), ("- a\n", "list"), ("tides\n", "str")])
def test_a_file_without_a_mapping_is_refused(text: str, found: str) -> None:
    with pytest.raises(ConfigError, match=f":1: holds {found}; allowed: a mapping with the keys"):
        parse_product(text.encode(), path=PATH)


def write_product(products: Path, *, name: str = "tides", text: str = SMALLEST) -> Path:
    folder = products / name
    folder.mkdir(parents=True)
    (folder / "product.yaml").write_text(text, encoding="utf-8")
    (folder / "features.py").write_text("def build(tables):\n    return tables\n", encoding="utf-8")
    return folder


def test_a_product_is_found_by_name_and_others_are_listed(tmp_path: Path) -> None:
    write_product(tmp_path)
    write_product(tmp_path, name="waves", text=SMALLEST.replace("name: tides", "name: waves"))
    (tmp_path / "not_a_product").mkdir()
    assert list_products(tmp_path) == ("tides", "waves")
    assert find_product(tmp_path, "waves").spec.name == "waves"
    with pytest.raises(ConfigError, match=r"product 'wave' is not in .*; allowed: \['tides', 'waves'\]"):
        find_product(tmp_path, "wave")


@pytest.mark.parametrize("name", ["../tides", "", ".", "tides/"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    write_product(tmp_path / "products")
    write_product(tmp_path)
    with pytest.raises(ConfigError, match="is not in"):
        find_product(tmp_path / "products", name)


def test_name_and_folder_must_agree(tmp_path: Path) -> None:
    folder = write_product(tmp_path, name="waves")
    with pytest.raises(ConfigError, match="name is 'tides' but its folder is 'waves'"):
        load_product(folder)


def test_a_folder_without_product_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no product\.yaml; create it"):
        load_product(tmp_path)


@pytest.mark.parametrize(
    ("change", "is_other"),
    [
        (lambda folder: (folder / "features.py").write_text("def build(tables): ...\n"), True),
        (lambda folder: (folder / "more.py").write_text("X = 1\n"), True),
        (lambda folder: (folder / "product.yaml").write_text(SMALLEST + "# a comment\n"), True),
        (lambda folder: (folder / "README.md").write_text("read me\n"), False),
    ],
    ids=["changed code", "more code", "changed yaml", "prose"],
)
def test_the_digest_follows_yaml_and_code(tmp_path: Path, change: Callable[[Path], object], *, is_other: bool) -> None:
    folder = write_product(tmp_path)
    before = load_product(folder).digest
    change(folder)
    assert (load_product(folder).digest != before) is is_other


def test_the_digest_does_not_depend_on_the_place(tmp_path: Path) -> None:
    folder = write_product(tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b" / "tides")
    assert load_product(folder).digest == load_product(tmp_path / "b" / "tides").digest


def test_the_demonstration_product_reads_in_milliseconds(flights: LoadedProduct) -> None:
    best_s = min(_cpu_s(flights.folder) for _ in range(7))
    assert best_s < 0.005


def _cpu_s(folder: Path) -> float:
    start = time.process_time()
    load_product(folder)
    return time.process_time() - start


def test_a_yaml_writer_can_write_products() -> None:
    text = yaml.safe_dump(yaml.safe_load(SMALLEST))
    assert "first: 2020-01-01" in text
    assert parse_product(text.encode(), path=PATH) == parse_product(SMALLEST.encode(), path=PATH)
