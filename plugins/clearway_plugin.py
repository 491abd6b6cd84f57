"""The one plugin file: registers Clearway's pages with Airflow."""

from airflow.plugins_manager import AirflowPlugin


class ClearwayPlugin(AirflowPlugin):
    """Pages for releases and for what serves now."""

    name = "clearway"
