"""The part of product.yaml that says what a tabular network learns from, if not from labels."""

import pydantic

from clearway.product_part import Part


class Teacher(Part):
    """Boosted trees that learn the labels, and mixtures of rows from which the network learns the trees
    (clearway.tabular.teacher).

    `num_mixtures`: per training row, `max_mixtures` in all; the network sees each `num_epochs` times. `share`: of a
    mixture's values that come from a second row. `num_boosters`: sets of trees, grown side by side; the network learns
    their mean. `max_rows`: training rows that each of them learns from, others than the rest where there are enough.
    `num_trees`, `learning_rate`, `num_leaves`: of each.
    """

    num_mixtures: int = pydantic.Field(4, ge=1)
    max_mixtures: int = pydantic.Field(250_000, ge=1)
    share: float = pydantic.Field(0.2, gt=0, lt=1)
    num_boosters: int = pydantic.Field(2, ge=1)
    max_rows: int = pydantic.Field(75_000, ge=1)
    num_trees: int = pydantic.Field(150, ge=1)
    learning_rate: float = pydantic.Field(0.06, gt=0, le=1)
    num_leaves: int = pydantic.Field(63, ge=2)
