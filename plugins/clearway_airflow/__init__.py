"""Clearway in Airflow: DAGs, operators, triggers and pages. Translation only; every decision lies in clearway itself."""
