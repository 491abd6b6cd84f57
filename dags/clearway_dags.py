"""Every product's DAGs: ingest, release, monitor, rollback; and one that reconciles. Drawn from include/products/."""

from clearway_airflow.factory import build_dags

globals().update(build_dags())
