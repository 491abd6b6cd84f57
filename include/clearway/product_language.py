"""The model section of a product whose model reads text."""

from typing import Literal, Self

import pydantic

from clearway.product_part import MAX_SEED, Part


class Language(Part):
    """A causal language model on bytes: every next byte of a document from the ones before it.

    Sizes as in clearway.language.shape. `batch_size`: sequences of `context_length` tokens per step. `max_text_bytes`:
    longest text the server takes. Defaults: a million parameters, whose training on some megabytes of text is minutes
    on two cores.
    """

    kind: Literal["language"]
    context_length: int = pydantic.Field(256, ge=8)
    num_layers: int = pydantic.Field(4, ge=1)
    dim: int = pydantic.Field(128, ge=8)
    num_heads: int = pydantic.Field(4, ge=1)
    num_kv_heads: int = pydantic.Field(2, ge=1)
    hidden_dim: int = pydantic.Field(384, ge=8)
    is_tied: bool = True
    lr: float = pydantic.Field(3e-3, gt=0, le=1)
    weight_decay: float = pydantic.Field(0.1, ge=0)
    batch_size: int = pydantic.Field(16, ge=1)
    num_epochs: int = pydantic.Field(2, ge=1)
    seed: int = pydantic.Field(2014, ge=0, le=MAX_SEED)
    checkpoint_s: float = pydantic.Field(5.0, gt=0)
    max_text_bytes: int = pydantic.Field(4096, ge=1, le=65_536)


class LanguageGates(Part):
    """Limits of the evaluation of a language model, in bits per byte of held-out text; smaller is better.

    `bits_max`, `bits_min`: too bad to serve, too good to be true (a leak). `bits_jump`: largest credible gain over the
    champion. `block`: the categorical column whose values are resampled whole, since their texts are akin; without one,
    days. `max_documents`: held-out documents judged, drawn at random. `min_slice_documents`: fewest for a slice to be
    gated. `num_resamples`: block bootstrap draws. `latency_ms`: p99 for one text.
    """

    kind: Literal["language"]
    bits_max: float = pydantic.Field(gt=0)
    bits_min: float = pydantic.Field(gt=0)
    bits_jump: float = pydantic.Field(0.5, gt=0)
    block: str | None = None
    max_documents: int = pydantic.Field(2000, ge=10)
    min_slice_documents: int = pydantic.Field(50, ge=1)
    num_resamples: int = pydantic.Field(500, ge=100)
    confidence: float = pydantic.Field(0.95, gt=0.5, lt=1)
    latency_ms: float = pydantic.Field(500.0, gt=0)
    first_model: Literal["absolute_gates", "person"] = "absolute_gates"

    @pydantic.model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if not self.bits_min < self.bits_max:
            raise ValueError(f"bits_min {self.bits_min} must be less than bits_max {self.bits_max}")
        return self
