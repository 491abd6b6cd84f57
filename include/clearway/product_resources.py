"""The part of product.yaml that says what tuning and training need of shared devices, and what a release may cost."""

from typing import Annotated

import pydantic

from clearway.product_part import Part

DeviceName = Annotated[str, pydantic.Field(pattern=r"^[a-z][a-z0-9]{0,29}$")]


class Resources(Part):
    """What a job of `tune` or `train` takes, and whether it makes room for a more urgent one.

    `slots`: all at once or none. `deadline_hours`: a release wants its devices this soon; 0: none. `max_minutes`:
    a job is stopped after this; one that says so may fill gaps before a larger job. 0: as long as it takes.
    `max_money`: what all jobs of one release may cost, in the price table's currency; 0: no limit.
    """

    device: DeviceName = "cpu"
    slots: int = pydantic.Field(1, ge=1, le=10_000)
    is_preemptible: bool = False
    deadline_hours: float = pydantic.Field(0.0, ge=0)
    max_minutes: float = pydantic.Field(0.0, ge=0)
    max_money: float = pydantic.Field(0.0, ge=0)
