"""Pages inside the Airflow UI, rendered on the server: what serves now, and what each run found."""
