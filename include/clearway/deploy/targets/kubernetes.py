"""Kubernetes: a Deployment, Service, autoscaler and disruption budget per version, and one route with the shares.

The route is a file of its own, since it must not name a version before that has pods which answer.
"""

from typing import Any

from clearway.contracts.manifest import canonical_json, sha256_of
from clearway.deploy.targets.standing import (
    CALL_PATH,
    DRAIN_S,
    FLUSH_S,
    HEALTH_PATH,
    HOME,
    LOAD_S,
    NAME_DIGITS,
    NUM_FAILURES,
    PORT,
    PROBE_S,
    USER_ID,
    Served,
    Standing,
)

NEEDS = ("gateway",)
PARTS = 10_000  # weights of a route are whole numbers up to a million
# Balancers learn that a pod is leaving while it still answers; nothing waits for them but this.
LEAVE_S = 10
_ROLE = "eks.amazonaws.com/role-arn"

Document = dict[str, Any]


def objects(standing: Standing) -> list[Document]:
    """Everything but the route."""
    found = [config_map(standing), service_account(standing)]
    for version in standing.versions:
        found += [
            deployment(standing, version),
            service(standing, version),
            autoscaler(standing, version),
            disruption_budget(standing, version),
        ]
    return found


def route(standing: Standing) -> Document:
    """Who gets which share of callers; Istio, Envoy Gateway, the AWS controller and others carry it out."""
    namespace, _, gateway = standing.containers.gateway.partition("/")
    spec: Document = {
        "parentRefs": [{"namespace": namespace, "name": gateway}],
        "rules": [
            {
                "matches": [{"path": {"type": "Exact", "value": CALL_PATH}, "method": "POST"}],
                "backendRefs": [
                    {"name": standing.name_of(version), "port": PORT, "weight": weight}
                    for version, weight in standing.whole_shares(PARTS)
                ],
            }
        ],
    }
    if standing.containers.host:
        spec["hostnames"] = [standing.containers.host]
    return _made("gateway.networking.k8s.io/v1", "HTTPRoute", _about(standing, standing.name), spec=spec)


def config_map(standing: Standing) -> Document:
    """What all containers are told. Its name follows from that, so that other settings make other pods."""
    about = _about(standing, config_name(standing))
    return _made("v1", "ConfigMap", about, immutable=True, data=standing.variables)


def config_name(standing: Standing) -> str:
    return f"{standing.name}-{sha256_of(canonical_json(standing.variables))[:NAME_DIGITS]}"


def service_account(standing: Standing) -> Document:
    """Pods are this towards AWS and nobody towards Kubernetes."""
    about = _about(standing, standing.name)
    if standing.containers.role:
        about["annotations"] = {_ROLE: standing.containers.role}
    return _made("v1", "ServiceAccount", about, automountServiceAccountToken=False)


def deployment(standing: Standing, version: Served) -> Document:
    """Pods of one version. How many there are is the autoscaler's."""
    labels = _labels(standing, version)
    spec = {
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": 2 * LOAD_S,
        "selector": {"matchLabels": _selector(standing, version)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {"metadata": {"labels": labels, "annotations": _digest(version)}, "spec": _pod(standing, version)},
    }
    return _made("apps/v1", "Deployment", _about(standing, standing.name_of(version), version), spec=spec)


def service(standing: Standing, version: Served) -> Document:
    """Where the route finds them."""
    port = {"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}
    spec = {"type": "ClusterIP", "selector": _selector(standing, version), "ports": [port]}
    return _made("v1", "Service", _about(standing, standing.name_of(version), version), spec=spec)


def autoscaler(standing: Standing, version: Served) -> Document:
    """As many pods as keep the load of their CPUs; fewer only after five quiet minutes."""
    containers = standing.containers
    target = {"type": "Utilization", "averageUtilization": containers.target_cpu_pct}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": standing.name_of(version)},
        "minReplicas": containers.min_count,
        "maxReplicas": containers.max_count,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
    }
    about = _about(standing, standing.name_of(version), version)
    return _made("autoscaling/v2", "HorizontalPodAutoscaler", about, spec=spec)


def disruption_budget(standing: Standing, version: Served) -> Document:
    """One pod at a time; one that does not answer holds no node back."""
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": _selector(standing, version)},
    }
    return _made("policy/v1", "PodDisruptionBudget", _about(standing, standing.name_of(version), version), spec=spec)


def container(standing: Standing, version: Served) -> Document:
    """How a model is served, by a Deployment and by KServe alike."""
    containers = standing.containers
    size = {"cpu": f"{round(containers.cpu * 1000)}m", "memory": f"{containers.memory_mib}Mi"}
    probe = {"httpGet": {"path": HEALTH_PATH, "port": PORT}, "timeoutSeconds": 5}
    return {
        "name": "server",
        "image": containers.image,
        "args": ["serve"],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": [{"name": name, "value": value} for name, value in standing.model_variables(version).items()],
        "envFrom": [{"configMapRef": {"name": config_name(standing)}}],
        "resources": {"requests": size, "limits": size},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "startupProbe": {**probe, "periodSeconds": 5, "failureThreshold": LOAD_S // 5},
        "readinessProbe": {**probe, "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**probe, "periodSeconds": PROBE_S, "failureThreshold": NUM_FAILURES},
        "volumeMounts": [{"name": "home", "mountPath": HOME}],
    }


def home_volume(standing: Standing) -> Document:
    """A volume of the pod's own: two servers that shared one would take each other's half-fetched package away."""
    containers, size = standing.containers, f"{standing.containers.disk_gib}Gi"
    if not containers.storage_class:
        return {"name": "home", "emptyDir": {"sizeLimit": size}}
    claim = {
        "accessModes": ["ReadWriteOncePod"],
        "storageClassName": containers.storage_class,
        "resources": {"requests": {"storage": size}},
    }
    labels = {"labels": _labels(standing, None)}
    return {"name": "home", "ephemeral": {"volumeClaimTemplate": {"metadata": labels, "spec": claim}}}


def _pod(standing: Standing, version: Served) -> Document:
    return {
        "serviceAccountName": standing.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"fsGroup": USER_ID, "runAsNonRoot": True},
        "terminationGracePeriodSeconds": LEAVE_S + DRAIN_S + FLUSH_S,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _selector(standing, version)},
            }
        ],
        "containers": [
            {**container(standing, version), "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_S}}}},
        ],
        "volumes": [home_volume(standing)],
    }


def _made(version: str, kind: str, about: Document, **parts: Any) -> Document:
    return {"apiVersion": version, "kind": kind, "metadata": about, **parts}


def _about(standing: Standing, name: str, version: Served | None = None) -> Document:
    about: Document = {
        "name": name,
        "namespace": standing.containers.namespace,
        "labels": _labels(standing, version),
    }
    return about | ({"annotations": _digest(version)} if version else {})


def _labels(standing: Standing, version: Served | None) -> Document:
    labels = {
        "app.kubernetes.io/name": "clearway-serving",
        "app.kubernetes.io/instance": standing.name,
        "app.kubernetes.io/managed-by": "clearway",
    }
    return labels | ({"app.kubernetes.io/version": version.short} if version else {})


def _selector(standing: Standing, version: Served) -> Document:
    return {"app.kubernetes.io/instance": standing.name, "app.kubernetes.io/version": version.short}


def _digest(version: Served) -> Document:
    return {"clearway/model-digest": version.digest}  # too long for a label
