"""A decoder-only language model: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Shape letters: B sequences, S tokens of each, V vocabulary, D width of the residual stream, H query heads, K key-value
heads, Q width of a head. Single-device code; sharding, recomputation and compilation are applied from outside.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from clearway.language.shape import LanguageShape


class LanguageModel(nn.Module):
    """(tokens [B, S], positions [B, S], documents [B, S] or None) → logits of the next token [B, S, V].

    `documents`: number of the document each token belongs to; attention stays within it. None: every sequence is one
    document, and the fastest causal kernel is used. Weights are whatever memory held; see initial.py.
    """

    def __init__(self, shape: LanguageShape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab_size, shape.dim)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = nn.RMSNorm(shape.dim, eps=shape.norm_eps)
        # No second name for a tied table: moving a model between devices would make two tables of it.
        self.head = None if shape.is_tied else nn.Linear(shape.dim, shape.vocab_size, bias=False)

    def forward(self, tokens: Tensor, positions: Tensor, documents: Tensor | None) -> Tensor:
        turn = rotation(positions, head_dim=self.shape.head_dim, theta=self.shape.rope_theta)
        mask = None if documents is None else document_mask(documents)
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, turn, mask)
        x = self.norm(x)
        return functional.linear(x, self.embedding.weight) if self.head is None else self.head(x)


class Layer(nn.Module):
    """Attention, then a feed-forward layer, each added to what came in: the unit that is sharded and recomputed."""

    def __init__(self, shape: LanguageShape) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(shape.dim, eps=shape.norm_eps)
        self.attention = Attention(shape)
        self.feed_norm = nn.RMSNorm(shape.dim, eps=shape.norm_eps)
        self.feed = FeedForward(shape)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), turn, mask)
        added: Tensor = x + self.feed(self.feed_norm(x))
        return added


class Attention(nn.Module):
    """Grouped-query attention (arXiv 2305.13245). Head counts follow from the weights, which may be a rank's share."""

    def __init__(self, shape: LanguageShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        self.query = nn.Linear(shape.dim, shape.dim, bias=False)
        self.key = nn.Linear(shape.dim, shape.num_kv_heads * shape.head_dim, bias=False)
        self.value = nn.Linear(shape.dim, shape.num_kv_heads * shape.head_dim, bias=False)
        self.output = nn.Linear(shape.dim, shape.dim, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        q_BHSQ = turned(self._heads(self.query(x)), turn)
        k_BKSQ, v_BKSQ = turned(self._heads(self.key(x)), turn), self._heads(self.value(x))
        num_served = q_BHSQ.shape[1] // k_BKSQ.shape[1]
        if mask is not None and x.is_cuda and num_served > 1:
            # The kernel that needs no S x S scores in memory takes a mask, but not fewer key than query heads.
            k_BKSQ, v_BKSQ = (t.repeat_interleave(num_served, dim=1) for t in (k_BKSQ, v_BKSQ))
        mixed = functional.scaled_dot_product_attention(
            q_BHSQ,
            k_BKSQ,
            v_BKSQ,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=q_BHSQ.shape[1] != k_BKSQ.shape[1],
        )
        made: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return made

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202): a gate decides how much of each hidden unit counts."""

    def __init__(self, shape: LanguageShape) -> None:
        super().__init__()
        self.gate = nn.Linear(shape.dim, shape.hidden_dim, bias=False)
        self.up = nn.Linear(shape.dim, shape.hidden_dim, bias=False)
        self.down = nn.Linear(shape.hidden_dim, shape.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.down(functional.silu(self.gate(x)) * self.up(x))
        return made


def rotation(positions: Tensor, *, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles [B, 1, S, Q/2], in float32 whatever the products are computed in."""
    pair = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    angle = positions[:, None, :, None].float() * theta ** (-pair / head_dim)
    return torch.cos(angle), torch.sin(angle)


def turned(x_BHSQ: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Each pair (q, q + Q/2) turned by its position's angle: products know only how far apart two tokens are."""
    cos, sin = turn
    first, second = x_BHSQ.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x_BHSQ.dtype)


def document_mask(documents: Tensor) -> Tensor:
    """Which keys a token may look at: those of its own document, up to itself. bool [B, 1, S, S]"""
    length = documents.shape[1]
    is_past = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return ((documents[:, :, None] == documents[:, None, :]) & is_past)[:, None]
