"""The part of product.yaml that says what a model must show before it may serve."""

from typing import Annotated, Literal, Self

import pydantic

from clearway.product_language import LanguageGates
from clearway.product_part import Part, PositiveShare, Share, kind_of_section

AUC_OF_CHANCE = 0.5


class Gates(Part):
    """Limits of the evaluation of a tabular model. Margins left out are derived from folds of the training period.

    `auc_floor`, `auc_ceiling`: too bad to serve, too good to be true (a leak). `auc_jump`: largest credible gain over
    the champion. `num_folds`: forward-chaining folds; `num_resamples`: day-block bootstrap draws; `latency_ms`: p99 for
    one row.
    """

    kind: Literal["tabular"] = "tabular"
    auc_floor: Share
    auc_ceiling: Share
    auc_jump: PositiveShare = 0.08
    ece_max: PositiveShare = 0.10
    min_slice_rows: int = pydantic.Field(500, ge=1)
    min_slice_positives: int = pydantic.Field(50, ge=1)
    num_folds: int = pydantic.Field(3, ge=2, le=10)
    num_resamples: int = pydantic.Field(500, ge=100)
    confidence: float = pydantic.Field(0.95, gt=0.5, lt=1)
    latency_ms: float = pydantic.Field(20.0, gt=0)
    first_model: Literal["absolute_gates", "person"] = "absolute_gates"

    @pydantic.model_validator(mode="after")
    def _something_passes(self) -> Self:
        if self.auc_floor >= self.auc_ceiling:
            text = f"auc_floor {self.auc_floor} is not below auc_ceiling {self.auc_ceiling}, so no model can pass"
            raise ValueError(f"{text}; lower the floor or raise the ceiling")
        if self.auc_floor < AUC_OF_CHANCE:
            text = f"auc_floor {self.auc_floor} is below {AUC_OF_CHANCE}, which guessing reaches, so every model passes"
            raise ValueError(f"{text}; raise the floor")
        if self.min_slice_positives > self.min_slice_rows:
            text = f"min_slice_positives {self.min_slice_positives} is above min_slice_rows {self.min_slice_rows}"
            raise ValueError(f"{text}, and positives are among the rows; allowed: at most min_slice_rows")
        return self


AnyGates = Annotated[
    Annotated[Gates, pydantic.Tag("tabular")] | Annotated[LanguageGates, pydantic.Tag("language")],
    pydantic.Discriminator(kind_of_section),
]
