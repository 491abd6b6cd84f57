-- Runs once, when the volume of the database server is empty. Airflow's own database is made by the image.
CREATE DATABASE clearway;
CREATE DATABASE mlflow;
