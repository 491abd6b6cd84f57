"""What a product wants of shared devices. Apart from who gets them: Airflow reads this with every DAG file."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What a product wants of a device class, as its product.yaml says.

    Args:
        deadline_hours: its releases want their devices this soon; 0: no deadline.
        max_minutes: its jobs are stopped after this; 0: they run as long as it takes.
    """

    product: str
    team: str
    risk_tier: str
    device: str = "cpu"
    slots: int = 1
    is_preemptible: bool = False
    deadline_hours: float = 0.0
    max_minutes: float = 0.0


def pool_of(device: str) -> str:
    """Name of the Airflow pool of a device class."""
    return f"clearway_{device}"
