"""The network: its encoding against the textbook formula, its members against each other."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from clearway.tabular.bins import Bins
from clearway.tabular.model import ModelShape, _by_member, _rows, _vectors, build, loss_sum, score

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


@pytest.mark.parametrize("width", [3, 16, 48])
def test_looked_up_rows_have_torchs_own_gradient(width: int):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(50, width, generator=generator, requires_grad=True)
    index = torch.randint(0, 50, (200, 7), generator=generator)
    weight = torch.randn(200, 7, width, generator=generator)
    found, expected = (
        torch.autograd.grad((look_up(table, index) * weight).sum(), table)[0]
        for look_up in (_rows, lambda rows, at: functional.embedding(at, rows))
    )
    assert torch.equal(_rows(table, index), table[index])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_vectors_of_numbers_have_the_values_and_gradients_of_their_formula():
    generator = torch.Generator().manual_seed(3)
    tables = [torch.randn(20, 6, generator=generator) for _ in range(2)]
    slot, place = torch.randint(20, (50, 4), generator=generator), torch.rand(50, 4, generator=generator)
    weight = torch.randn(50, 4, 6, generator=generator)

    def found(formula) -> list[torch.Tensor]:
        own = [table.clone().requires_grad_() for table in tables]
        vectors = formula(*own)
        return [vectors.detach(), *torch.autograd.grad((vectors * weight).sum(), own)]

    ours = found(lambda edge, change: _vectors(edge, change, slot, place))
    plain = found(lambda edge, change: functional.embedding(slot, edge) + place[:, :, None] * change[slot])
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("is_bfloat16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("num_rows", [0, 1, 9])
@pytest.mark.parametrize(("num_members", "own"), [(2, 4), (3, 5), (2, 8), (4, 1), (1, 3)])
def test_members_are_put_in_order_without_a_changed_bit(num_members: int, own: int, num_rows: int, is_bfloat16: bool):
    generator, columns = torch.Generator().manual_seed(5), 7
    x = torch.randn(num_rows, columns, num_members * own, generator=generator)
    kind = torch.bfloat16 if is_bfloat16 else torch.float32
    # As a part of something wider, the way a gradient comes out of a concatenation.
    gradient = torch.randn(num_members, num_rows, columns * own + 2, generator=generator).to(kind)[:, :, 1:-1]

    def found(order) -> list[torch.Tensor]:
        own_x = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
            ordered = order(own_x)
        return [ordered.detach(), *torch.autograd.grad(ordered, own_x, gradient)]

    ours = found(lambda table: _by_member(table, num_members))
    plain = found(
        lambda table: (
            table.view(num_rows, columns, num_members, own)
            .permute(2, 0, 1, 3)
            .reshape(num_members, num_rows, columns * own)
            .to(kind)
        )
    )
    for mine, theirs in zip(ours, plain, strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs)
