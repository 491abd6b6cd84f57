import inspect

import pytest

from clearway.contracts.errors import ConfigError
from clearway.infra.layout import Layout

LAYOUT = Layout("file:///store", "flights")
PLACES = [name for name, _ in inspect.getmembers(Layout, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize("place", PLACES)
def test_every_place_lies_below_its_product(place: str) -> None:
    assert getattr(LAYOUT, place)("x").startswith("file:///store/flights/")


def test_no_two_things_share_a_place() -> None:
    addresses = [getattr(LAYOUT, place)("x") for place in PLACES]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize("place", PLACES)
def test_a_name_may_not_leave_its_place(place: str) -> None:
    with pytest.raises(ConfigError):
        getattr(LAYOUT, place)("../other")
