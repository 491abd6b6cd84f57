"""One machine, one launcher: Airflow, MLflow and the model server as child processes, and the loop shown at work.

Never imports airflow: it talks to it through its command line and its REST API, as any other user would.
"""
