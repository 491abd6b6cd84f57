"""The model section of a product whose model reads text."""

from typing import Literal

import pydantic

from clearway.product_part import Part


class Language(Part):
    """A causal language model on bytes: every next byte of a document from the ones before it.

    Sizes as in clearway.language.shape. `batch_size`: sequences of `context_length` tokens per step. Defaults: a
    million parameters, whose training on some megabytes of text is minutes on two cores.
    """

    kind: Literal["language"]
    context_length: int = pydantic.Field(256, ge=8)
    num_layers: int = pydantic.Field(4, ge=1)
    dim: int = pydantic.Field(128, ge=8)
    num_heads: int = pydantic.Field(4, ge=1)
    num_kv_heads: int = pydantic.Field(2, ge=1)
    hidden_dim: int = pydantic.Field(384, ge=8)
    is_tied: bool = True
    lr: float = pydantic.Field(3e-3, gt=0)
    weight_decay: float = pydantic.Field(0.1, ge=0)
    batch_size: int = pydantic.Field(16, ge=1)
    num_epochs: int = pydantic.Field(2, ge=1)
    seed: int = 2014
    checkpoint_s: float = pydantic.Field(5.0, gt=0)
