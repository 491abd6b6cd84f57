"""Datasets as stages read them."""

import numpy as np
import pyarrow as pa
import pytest

from clearway.contracts.errors import IntegrityError
from clearway.infra.datasets import KEY, LABEL, TIME, open_dataset, read_labelled
from clearway.infra.environment import Environment
from clearway.product import LoadedProduct
from training_kit import STORAGE, make_rows, make_world


def test_labelled_rows_are_in_order_of_time_then_key_and_rows_without_a_label_left_out(
    env: Environment, flights: LoadedProduct
):
    rows = make_rows(300)
    same_time = rows[TIME].take(pa.array(np.arange(300) // 3))  # so that the key decides
    is_known = np.arange(300) % 5 != 0
    labels = pa.array(rows["late15"].to_numpy(), mask=~is_known)
    rows = rows.set_column(rows.column_names.index(TIME), TIME, same_time)
    rows = rows.set_column(rows.column_names.index("late15"), "late15", labels)
    shuffled = rows.take(pa.array(np.random.default_rng(0).permutation(300)))
    world = make_world(env, flights, shuffled)
    document = open_dataset(STORAGE, world.dataset)
    found = read_labelled(STORAGE, world.layout, document, table="labels", key="key", column="late15")
    expected = rows.filter(pa.array(is_known))
    assert found[KEY].to_pylist() == expected[KEY].to_pylist()
    assert found[LABEL].to_pylist() == expected["late15"].to_pylist()
    assert found["a"].to_pylist() == expected["a"].to_pylist()


def test_a_key_with_several_labels_is_named(env: Environment, flights: LoadedProduct):
    rows = make_rows(300)
    twice = str(rows["key"][0])
    world = make_world(env, flights, pa.concat_tables([rows, rows.slice(0, 1)]))
    document = open_dataset(STORAGE, world.dataset)
    with pytest.raises(IntegrityError, match=rf"1 keys of 'labels' have several labels, \['{twice}'\] among them"):
        read_labelled(STORAGE, world.layout, document, table="labels", key="key", column="late15")
