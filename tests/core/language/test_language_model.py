"""What a token may know: its own document up to itself, and how far apart two tokens are."""

import pytest
import torch

from clearway.language.initial import build
from clearway.language.model import LanguageModel, document_mask, rotation, turned
from clearway.language.shape import LanguageShape
from clearway.language.stream import documents_of
from clearway.language.tokens import MARK

SHAPE = LanguageShape(
    vocab_size=257, context_length=24, num_layers=2, dim=32, num_heads=4, num_kv_heads=2, hidden_dim=48
)
# float32 sums in another order; logits are near 0.1 in size.
CLOSE = {"rtol": 0, "atol": 2e-6}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return build(SHAPE, seed=3).eval()


def logits_of(model, tokens):
    positions, documents = documents_of(tokens.numpy())
    with torch.no_grad():
        return model(tokens, torch.from_numpy(positions), torch.from_numpy(documents))


def packed(*lengths, seed=0):
    """One sequence of documents of these lengths, each begun by its mark. [1, S]"""
    drawn = torch.randint(0, 256, (1, sum(lengths)), generator=torch.Generator().manual_seed(seed))
    start = 0
    for length in lengths:
        drawn[0, start] = MARK
        start += length
    return drawn


def test_a_token_sees_nothing_of_another_document(model):
    tokens = packed(7, 9, 8)
    before = logits_of(model, tokens)
    for start, stop in ((0, 7), (7, 16), (16, 24)):
        changed = tokens.clone()
        changed[0, start + 1 : stop] = (changed[0, start + 1 : stop] + 1) % 256
        after = logits_of(model, changed)
        inside = torch.zeros(24, dtype=torch.bool)
        inside[start:stop] = True
        assert torch.equal(after[0, ~inside], before[0, ~inside])
        assert not torch.equal(after[0, inside], before[0, inside])


def test_a_token_sees_nothing_that_comes_later(model):
    tokens = packed(24)
    before = logits_of(model, tokens)
    for place in range(1, 24):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % 256
        after = logits_of(model, changed)
        assert torch.equal(after[0, :place], before[0, :place])
        assert not torch.equal(after[0, place:], before[0, place:])


def test_packed_documents_get_what_they_get_alone(model):
    tokens = packed(5, 11, 8)
    together = logits_of(model, tokens)
    for start, stop in ((0, 5), (5, 16), (16, 24)):
        alone = logits_of(model, tokens[:, start:stop])
        torch.testing.assert_close(together[:, start:stop], alone, **CLOSE)


def test_one_document_needs_no_mask(model):
    tokens = packed(24)
    with torch.no_grad():
        unmasked = model(tokens, torch.arange(24)[None], None)
    torch.testing.assert_close(unmasked, logits_of(model, tokens), **CLOSE)


def test_only_distances_between_positions_count(model):
    tokens, here = packed(24), torch.arange(24)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(tokens, here + 1000, None), model(tokens, here, None), rtol=0, atol=2e-5)
        assert (model(tokens, here * 2, None) - model(tokens, here, None)).abs().max() > 1e-4


def test_a_turn_keeps_lengths_and_turns_by_the_distance():
    x = torch.randn(1, 1, 6, 8, generator=torch.Generator().manual_seed(1))
    turn = rotation(torch.arange(6)[None], head_dim=8, theta=100.0)
    torch.testing.assert_close(turned(x, turn).norm(dim=-1), x.norm(dim=-1))
    # The first pair turns by one radian per token.
    first = turned(torch.ones(1, 1, 6, 8), turn)[0, 0, :, 0]
    at = torch.arange(6.0)
    torch.testing.assert_close(first, torch.cos(at) - torch.sin(at))


def test_grouped_heads_are_full_heads_with_repeated_keys(model):
    """The same function written with as many key-value heads as query heads."""
    full = build(
        LanguageShape(
            vocab_size=257, context_length=24, num_layers=2, dim=32, num_heads=4, num_kv_heads=4, hidden_dim=48
        ),
        seed=3,
    )
    state = dict(model.state_dict())
    for name, value in state.items():
        if name.endswith((".key.weight", ".value.weight")):
            state[name] = value.view(2, 8, 32).repeat_interleave(2, dim=0).reshape(32, 32)
    full.load_state_dict(state)
    torch.testing.assert_close(logits_of(full, packed(9, 15)), logits_of(model, packed(9, 15)), **CLOSE)


def test_a_mask_allows_the_own_document_up_to_oneself():
    mask = document_mask(torch.tensor([[0, 0, 1]]))[0, 0]
    assert mask.tolist() == [[True, False, False], [True, True, False], [False, False, True]]
