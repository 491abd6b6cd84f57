# syntax=docker/dockerfile:1
# One image for every service of docker-compose.yaml: Airflow's parts, MLflow and the model server differ only in their
# command. The project lies where the Astro CLI mounts dags/, plugins/ and include/, so it also builds from this file.
# Targets: runtime (the last, so the default); training and serving for AWS, see docs/aws.md.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS packages
# torch's CPU build saves 4 GB where an index offers it: --build-arg TORCH_INDEX=<address of an index with CPU builds>.
ARG TORCH_INDEX=
ENV PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/venv
COPY requirements.txt requirements-cpu.txt requirements-cuda.txt ./
# As `make install` does: the CPU build if it is to be had, all else from the lock, CUDA's libraries only if needed.
RUN --mount=type=cache,target=/var/cache/pip \
    pip="/opt/venv/bin/pip install --no-deps --require-hashes" \
    && { $pip ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} -r requirements-cpu.txt || echo "taking torch's default build"; } \
    && $pip -r requirements.txt \
    && { /opt/venv/bin/pip show torch | grep -q '+cpu' || $pip -r requirements-cuda.txt; }

FROM python:${PYTHON} AS project
# libgomp1: OpenMP for LightGBM and torch. Nothing else is needed: Spark's engine and the Java runtime come in wheels.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 50000 --gid 0 --create-home --home-dir /usr/local/airflow --shell /usr/sbin/nologin astro \
    # Volumes take the owner of the folder they cover, so a service never needs root to write its own.
    && install -d -o 50000 -g 0 -m 0770 /var/lib/clearway /usr/local/airflow/logs
COPY --from=packages /opt/venv /opt/venv
WORKDIR /usr/local/airflow
COPY --chown=50000:0 pyproject.toml airflow_settings.yaml ./
COPY --chown=50000:0 include include
COPY --chown=50000:0 plugins plugins
COPY --chown=50000:0 dags dags
# Every task is a process of its own and writes no bytecode: without this each would compile all it imports.
RUN python -m compileall -q include plugins dags
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/usr/local/airflow/include:/usr/local/airflow/plugins \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    AIRFLOW_HOME=/usr/local/airflow \
    CLEARWAY__HOME=/var/lib/clearway \
    OMP_WAIT_POLICY=PASSIVE \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=1 \
    GX_ANALYTICS_ENABLED=false

# Both run as root, which SageMaker asks for: it writes into /opt/ml as root, on a machine that the container has for itself.
# Jobs bring their command, but for trials of a tuning job, which start `train`. Batch, which runs this image as well,
# names the user below.
FROM project AS training
COPY --chmod=0755 include/aws/train /usr/local/bin/train
CMD ["python", "-m", "clearway", "--help"]

# Started with one word, `serve`. As a volume the folder keeps its owner on Fargate, so a task without rights can write it.
FROM project AS serving
VOLUME /var/lib/clearway
EXPOSE 8080
ENTRYPOINT ["python", "-m", "clearway.serve.sagemaker"]

FROM project AS runtime
USER 50000:0
EXPOSE 8890
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8890/healthz', timeout=4)"]
CMD ["python", "-m", "clearway.serve", "--product", "flights", "--host", "0.0.0.0", "--port", "8890"]
