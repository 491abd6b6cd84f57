"""The network: its encoding against the textbook formula, its members against each other."""

import numpy as np
import torch

from clearway.tabular.bins import Bins
from clearway.tabular.model import ModelShape, build, loss_sum, score

SHAPE = ModelShape(
    num_numeric=2,
    num_bins=4,
    numeric_dim=3,
    cardinalities=(3, 5),
    embedding_dim=2,
    hidden=(8,),
    num_members=2,
    dropout=0.0,
)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    numeric = np.array([[0.1, np.nan], [2.5, 1.0], [9.0, -3.0], [np.nan, 0.0]], np.float32)
    bins = Bins.fit(np.array([[0, -1], [1, 0], [2, 1], [3, 2], [4, 3]], np.float32), num_bins=4)
    index, place = bins.place(numeric)
    return torch.from_numpy(index).long(), torch.from_numpy(place), torch.tensor([[0, 1], [2, 4], [1, 0], [0, 0]])


def test_lookup_equals_the_weighted_sum_over_bins():
    model = build(SHAPE, seed=0)
    index, place, _ = batch()
    edge, change = (table.view(2, 5, -1) for table in model.number_tables())
    for row in range(4):
        for column in range(2):
            t, fraction = int(index[row, column]), float(place[row, column])
            weights = torch.tensor([1.0] * t + [fraction] + [0.0] * 4)[:4]
            textbook = model.bias[column, 0] + (weights[:, None] * model.slope[column]).sum(0)
            expected = model.missing[column, 0] if t == 4 else textbook
            found = edge[column, t] + fraction * change[column, t]
            torch.testing.assert_close(found, expected)


def test_members_do_not_touch_each_other():
    model = build(SHAPE, seed=0)
    model(*batch())[0].sum().backward()
    for parameter in (model.slope, model.bias, model.embedding):
        first, second = parameter.grad.chunk(2, dim=-1)
        assert first.abs().sum() > 0
        assert second.abs().sum() == 0
    assert all(w.grad[1].abs().sum() == 0 for w in model.weights)


def test_score_is_the_mean_probability_and_loss_is_summed_over_members():
    logits, label = torch.tensor([[0.0, 2.0], [1.0, -2.0]]), torch.tensor([1.0, 0.0])
    torch.testing.assert_close(score(logits), torch.sigmoid(logits).mean(0))
    per_member = [torch.nn.functional.binary_cross_entropy_with_logits(m, label, reduction="sum") for m in logits]
    torch.testing.assert_close(loss_sum(logits, label), sum(per_member))


def test_equal_seeds_equal_weights_whatever_was_drawn_before():
    first = build(SHAPE, seed=5)
    torch.rand(17)
    second = build(SHAPE, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.slope, build(SHAPE, seed=6).slope)


def test_an_unseen_category_starts_silent():
    model = build(SHAPE, seed=0)
    assert model.embedding[model.category_offset].abs().sum() == 0
