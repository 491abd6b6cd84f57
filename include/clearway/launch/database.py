"""Whether Airflow's database fits the installed Airflow, known without starting Airflow (which costs 3 s)."""

import sys
from importlib.metadata import version

from clearway.launch.paths import StackPaths


def migrate_command() -> tuple[str, ...]:
    """Create or upgrade the database."""
    return (sys.executable, "-m", "airflow", "db", "migrate")


def is_migrated(paths: StackPaths) -> bool:
    """Whether this very database was migrated by the installed version before."""
    marker = paths.airflow / "migrated-by"
    return paths.airflow_db.exists() and marker.exists() and marker.read_text(encoding="utf-8") == _version()


def mark_migrated(paths: StackPaths) -> None:
    """Remember that a migration ended well."""
    (paths.airflow / "migrated-by").write_text(_version(), encoding="utf-8")


def _version() -> str:
    return version("apache-airflow")
