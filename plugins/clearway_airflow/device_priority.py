"""The weight of a task on shared devices, for Airflow's scheduler: translates, computes nothing.

Airflow asks once, when it makes a run's task instances, and again when a task is cleared; never while a task waits. It
asks inside the scheduler: whatever goes wrong is logged and answered with the lowest weight, so that one unreadable
product.yaml cannot stop every other product.
"""

import logging
from typing import Any

from airflow.task.priority_strategy import PriorityWeightStrategy

# ruff: noqa: PLC0415 - every Airflow process loads this file, the scheduler alone computes

LOG = logging.getLogger("clearway.devices")
LOWEST_WEIGHT = 1


class DevicePriority(PriorityWeightStrategy):
    """Risk tier, deadline, the team's fair share, and a person's override; docs/reference/devices.md."""

    def get_weight(self, ti: Any) -> int:
        """Weight of a task of a `<product>_release` DAG."""
        from clearway.devices.desk import Desk
        from clearway.devices.priority import weight
        from clearway.infra.clock import SystemClock
        from clearway.infra.environment import Environment
        from clearway_airflow.cards import products_folder, read_card

        name = ti.dag_id.removesuffix("_release")
        try:
            want = read_card(products_folder() / name / "product.yaml").want
            desk = Desk(Environment.load(), want.device, clock=SystemClock())
            return weight(desk.priority_of(want))
        except Exception:
            LOG.exception("no priority for task %s of %s; it gets the lowest, %d", ti.task_id, name, LOWEST_WEIGHT)
            return LOWEST_WEIGHT
