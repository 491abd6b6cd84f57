"""The sizes of a causal language model, and what follows from them before a single weight exists."""

from dataclasses import dataclass

from clearway.contracts.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageShape:
    """Sizes of the network.

    Args:
        vocab_size: tokens, specials included.
        context_length: most tokens of one sequence.
        dim: width of the residual stream.
        num_heads: query heads; each is `dim / num_heads` wide.
        num_kv_heads: heads of keys and values; each serves `num_heads / num_kv_heads` query heads.
        hidden_dim: width inside the feed-forward layers.
        rope_theta: longest wavelength of the rotary positions is 2 pi times this, in tokens.
        is_tied: the table that reads tokens also predicts them.
        norm_eps: added to the mean square before its root.
    """

    vocab_size: int
    context_length: int
    num_layers: int
    dim: int
    num_heads: int
    num_kv_heads: int
    hidden_dim: int
    rope_theta: float = 10_000.0  # of the RoFormer paper (arXiv 2104.09864, section 3.2.2)
    is_tied: bool = True
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.context_length, self.num_layers, self.dim, self.hidden_dim)
        if min(*sizes, self.num_heads, self.num_kv_heads) < 1:
            raise ConfigError(f"sizes {self} must all be 1 or more; correct the model section")
        if self.dim % (2 * self.num_heads):
            raise ConfigError(
                f"dim {self.dim} does not divide into {self.num_heads} heads of even width; rotary positions turn pairs"
            )
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(
                f"num_heads {self.num_heads} is no multiple of num_kv_heads {self.num_kv_heads}; "
                "every key-value head serves equally many query heads"
            )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.dim // self.num_heads

    @property
    def num_parameters(self) -> int:
        """Weights of the whole network; a tied table counts once."""
        tables = 1 if self.is_tied else 2
        return tables * self.vocab_size * self.dim + self.num_layers * self._num_per_layer + self.dim

    @property
    def flops_per_token(self) -> float:
        """Forward and backward pass, per token of a full sequence: 6 N + 12 L H Q T.

        N: weights that multiply (all but a table that is only looked up), 2 operations each forward, 4 backward.
        Second term: scores and weighted sums of L layers, H heads of width Q over T tokens, the causal half not taken
        off. Source: PaLM, arXiv 2204.02311, appendix B.
        """
        num_looked_up = 0 if self.is_tied else self.vocab_size * self.dim
        attention = 12 * self.num_layers * self.dim * self.context_length
        return float(6 * (self.num_parameters - num_looked_up) + attention)

    @property
    def _num_per_layer(self) -> int:
        queries_and_output = 2 * self.dim * self.dim
        keys_and_values = 2 * self.dim * self.num_kv_heads * self.head_dim
        return queries_and_output + keys_and_values + 3 * self.dim * self.hidden_dim + 2 * self.dim
