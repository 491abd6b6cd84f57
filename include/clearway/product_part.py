"""What every part of a product's description is made of."""

import pydantic


class Part(pydantic.BaseModel):
    """Base of all parts: closed and immutable."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
