"""What every part of a product's description is made of."""

from typing import Annotated, Any, Self

import pydantic

from clearway.contracts.errors import ConfigError

# What every generator takes that a seed is given to: numpy, torch, LightGBM, SageMaker.
MAX_SEED = 2**31 - 1

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
PositiveShare = Annotated[float, pydantic.Field(gt=0, le=1)]


class Part(pydantic.BaseModel):
    """Base of all parts: closed and immutable."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    def overridden(self, params: dict[str, Any]) -> Self:
        """The part with other values, checked anew. Raises: ConfigError naming the first that does not fit."""
        try:
            return type(self).model_validate(self.model_dump() | params)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise ConfigError(
                f"model parameter {name!r} is {first.get('input')!r}: {first['msg']}; correct product.yaml or the "
                "params"
            ) from error


def kind_of_section(value: Any) -> Any:
    """Which kind of model a section describes; without a word, the tabular one."""
    return value.get("kind", "tabular") if isinstance(value, dict) else value.kind
