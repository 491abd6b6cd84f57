"""Whether a product's jobs can ever have the devices they ask for."""

from collections.abc import Mapping

from clearway.contracts.errors import ConfigError
from clearway.infra.environment import DeviceClass
from clearway.product_resources import Resources


def check_fits(resources: Resources, classes: Mapping[str, DeviceClass]) -> None:
    """Airflow lets a task wait for ever for a pool that is not there, or for more slots than it has.

    Args:
        classes: device classes of the environment, by name.
    Raises: ConfigError.
    """
    known = classes.get(resources.device)
    if known is None:
        raise ConfigError(
            f"resources.device is {resources.device!r}; allowed: {sorted(classes)}, the devices.classes of the settings"
        )
    if resources.slots > known.slots:
        raise ConfigError(
            f"resources.slots is {resources.slots}; allowed: at most {known.slots}, the slots of device class "
            f"{resources.device!r} in the settings"
        )
