"""Clearway in Airflow: DAGs, operators, triggers and pages. Translation only: decisions lie in clearway itself."""
