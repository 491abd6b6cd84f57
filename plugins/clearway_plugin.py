"""The one plugin file: registers Clearway's pages and its task priority with Airflow.

Every Airflow process runs it, so the pages themselves are imported only by the process that asks for them.
"""

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from clearway_airflow.device_priority import DevicePriority


class ClearwayPlugin(AirflowPlugin):
    """A page in the menu for what serves now, and a tab on every run for what it found."""

    name = "clearway"
    external_views = [  # noqa: RUF012 - Airflow removes invalid entries from this very list
        {"name": "Serving", "href": "/clearway/serving", "destination": "nav", "url_route": "clearway-serving"},
        {
            "name": "Release report",
            "href": "/clearway/runs/{DAG_ID}/{RUN_ID}",
            "destination": "dag_run",
            "url_route": "clearway-report",
        },
    ]

    priority_weight_strategies = [DevicePriority]  # noqa: RUF012 - Airflow reads this very list

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        """The pages' own application, mounted below /clearway."""
        from clearway_airflow.ui.app import PREFIX, app  # noqa: PLC0415 - FastAPI is for the API server only

        return [{"app": app, "url_prefix": PREFIX, "name": "Clearway"}]
