"""Where the stack keeps its own files below home."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StackPaths:
    """Addresses only; `home` is the environment's home, `root` the project folder."""

    home: Path
    root: Path

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME: metadata database and task logs."""
        return self.home / "airflow"

    @property
    def airflow_db(self) -> Path:
        return self.airflow / "airflow.db"

    @property
    def mlflow(self) -> Path:
        return self.home / "mlflow"

    @property
    def logs(self) -> Path:
        """One file per component."""
        return self.home / "logs"

    @property
    def run(self) -> Path:
        """State file and lock of the running stack."""
        return self.home / "run"

    @property
    def keys(self) -> Path:
        """Generated secrets, readable by this user only."""
        return self.home / "keys"

    @property
    def settings_file(self) -> Path:
        return self.root / "airflow_settings.yaml"

    def log(self, component: str) -> Path:
        """Log file of one component."""
        return self.logs / f"{component}.log"

    def make(self) -> None:
        """Create every folder, private to this user."""
        for folder in (self.home, self.airflow, self.mlflow, self.logs, self.run, self.keys):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
