"""KServe: one InferenceService. Its newest revision takes the canary's share, the one before it the rest.

KServe remembers by itself which revision took all traffic last, so a candidate is written as what the service shall
become, and its share beside it. Knative, which runs it, refuses part of what a pod may say: a preStop, a grace period,
claims of volumes, other names of ports, settings of the pod's security, unless a cluster allows them.
"""

from clearway.deploy.targets.kubernetes import Document, config_map, container, service_account
from clearway.deploy.targets.standing import LOAD_S, PORT, Served, Standing

NEEDS = ()
PARTS = 100  # KServe's shares are whole percents
TIMEOUT_S = 60  # of a request


def objects(standing: Standing) -> list[Document]:
    """What the service runs with, and the service."""
    return [config_map(standing), service_account(standing), inference_service(standing)]


def inference_service(standing: Standing) -> Document:
    """The newest version, and its share while a rollout is under way."""
    newest, share = standing.whole_shares(PARTS)[-1]
    predictor: Document = {
        "serviceAccountName": standing.name,
        "minReplicas": standing.containers.min_count,
        "maxReplicas": standing.containers.max_count,
        "timeout": TIMEOUT_S,
        "containers": [_container(standing, newest)],
        "volumes": [{"name": "home", "emptyDir": {"sizeLimit": f"{standing.containers.disk_gib}Gi"}}],
    }
    if standing.candidate is not None:
        predictor["canaryTrafficPercent"] = share
    about = {**config_map(standing)["metadata"], "name": standing.name}
    about["annotations"] = {"clearway/model-digest": newest.digest}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": about,
        "spec": {"predictor": predictor},
    }


def _container(standing: Standing, version: Served) -> Document:
    """Without a startup probe, so nobody asks whether it lives while it loads."""
    found = container(standing, version)
    rights = {name: value for name, value in found["securityContext"].items() if name != "runAsGroup"}
    own = {
        "name": "kserve-container",
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
        "securityContext": rights,
        "livenessProbe": {**found["livenessProbe"], "initialDelaySeconds": LOAD_S},
    }
    return {name: value for name, value in (found | own).items() if name != "startupProbe"}
