"""Files for Kubernetes and KServe: held against the published schemas, field by field, and safe to run.

kubernetes_schema.json beside this file says where it is from.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from clearway.contracts.errors import ConfigError
from clearway.deploy.targets import kserve, kubernetes
from clearway.deploy.targets.standing import CALL_PATH, DRAIN_S, FLUSH_S, HEALTH_PATH, HOME
from targets_kit import CANDIDATE, CHAMPION, IMAGE, standing

SCHEMA = json.loads(Path(__file__).with_name("kubernetes_schema.json").read_text())
# Whose keys are a person's, not Kubernetes'.
MAPS = {"labels", "annotations", "data", "matchLabels", "requests", "limits"}


def validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]})


def rendered() -> Iterator[Any]:
    for weight_pct in (None, 0.0, 5.0):
        for storage_class in ("", "gp3"):
            stands = standing(weight_pct, storage_class=storage_class)
            documents = [*kubernetes.objects(stands), kubernetes.route(stands), *kserve.objects(stands)]
            for document in documents:
                name = f"{document['kind']}-{document['metadata']['name'][-12:]}"
                yield pytest.param(document, id=f"{name}-{weight_pct}-{storage_class or 'node'}")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a field is named."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if "/" in key:  # of a Service's selector, which is such a map too
                continue
            yield (*path, key)
            if key not in MAPS:
                yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def misspelt(document: Any, path: tuple[Any, ...]) -> Any:
    copy = json.loads(json.dumps(document))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    inner[f"{path[-1]}x"] = inner.pop(path[-1])
    return copy


@pytest.mark.parametrize("document", list(rendered()))
def test_what_is_written_down_fits_the_published_schema_and_a_misspelt_field_does_not(document):
    schema = validator(document["kind"])
    assert [error.message for error in schema.iter_errors(document)] == []
    found = list(places(document))
    assert len(found) >= 8
    assert [path for path in found if schema.is_valid(misspelt(document, path))] == []


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def test_each_version_has_pods_a_service_an_autoscaler_and_a_budget_and_the_route_names_all_of_them():
    stands = standing(5.0)
    objects = kubernetes.objects(stands)
    names = {stands.name_of(served) for served in stands.versions}
    assert names == {f"seattle-rain-{CHAMPION[:12]}", f"seattle-rain-{CANDIDATE[:12]}"}
    for kind in ("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"):
        assert {document["metadata"]["name"] for document in of_kind(objects, kind)} == names
    (rule,) = kubernetes.route(stands)["spec"]["rules"]
    assert {backend["name"]: backend["weight"] for backend in rule["backendRefs"]} == {
        f"seattle-rain-{CHAMPION[:12]}": 9500, f"seattle-rain-{CANDIDATE[:12]}": 500
    }  # fmt: skip
    assert rule["matches"] == [{"path": {"type": "Exact", "value": CALL_PATH}, "method": "POST"}]


def test_selectors_find_the_pods_of_one_version_and_no_others():
    objects = kubernetes.objects(standing(5.0))
    for deployment in of_kind(objects, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        name = deployment["metadata"]["name"]
        selecting = [
            document
            for document in objects
            if document["kind"] in {"Service", "PodDisruptionBudget", "Deployment"}
            and (chosen := document["spec"]["selector"])
            and set(chosen.get("matchLabels", chosen).items()) <= set(labels.items())
        ]
        assert [document["metadata"]["name"] for document in selecting] == [name] * 3
        port = of_kind(objects, "Service")[0]["spec"]["ports"][0]["targetPort"]
        assert port in {p["name"] for p in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}


@pytest.mark.parametrize("target", ["kubernetes", "kserve"])
def test_a_container_runs_these_very_bytes_without_rights_and_writes_one_folder(target):
    stands = standing(5.0)
    if target == "kserve":
        pods = [kserve.inference_service(stands)["spec"]["predictor"]]
    else:
        pods = [d["spec"]["template"]["spec"] for d in of_kind(kubernetes.objects(stands), "Deployment")]
    models = set()
    for pod in pods:
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        rights = container["securityContext"]
        assert (rights["runAsNonRoot"], rights["readOnlyRootFilesystem"]) == (True, True)
        assert (rights["allowPrivilegeEscalation"], rights["capabilities"]) == (False, {"drop": ["ALL"]})
        assert container["resources"]["limits"] == container["resources"]["requests"] == {
            "cpu": "1000m", "memory": "2048Mi"
        }  # fmt: skip
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == [HOME]
        probes = {container[probe]["httpGet"]["path"] for probe in container if probe.endswith("Probe")}
        assert probes == {HEALTH_PATH}
        assert [list(source) for source in container["envFrom"]] == [["configMapRef"]]
        models |= {v["value"] for v in container["env"] if v["name"].endswith("MODEL_DIGEST")}
    assert models == ({CANDIDATE} if target == "kserve" else {CHAMPION, CANDIDATE})


def test_a_pod_that_leaves_answers_until_balancers_know_and_then_drains():
    (deployment,) = of_kind(kubernetes.objects(standing()), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    leave_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= leave_s + DRAIN_S + FLUSH_S
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "replicas" not in deployment["spec"], "applying it again would undo the autoscaler"


def test_other_settings_make_other_pods():
    one, other = (kubernetes.objects(standing(host=host, disk_gib=5)) for host in ("a.example.com", "b.example.com"))
    assert one == other  # the route's matter
    changed = standing()
    changed.variables["CLEARWAY__SERVING__SLOW_S"] = "2.0"
    (before,), (after,) = of_kind(one, "ConfigMap"), of_kind(kubernetes.objects(changed), "ConfigMap")
    assert before["metadata"]["name"] != after["metadata"]["name"]


def test_kserve_is_told_a_share_only_while_a_rollout_is_under_way():
    resting = kserve.inference_service(standing())["spec"]["predictor"]
    assert "canaryTrafficPercent" not in resting
    assert kserve.inference_service(standing(5.0))["spec"]["predictor"]["canaryTrafficPercent"] == 5
    with pytest.raises(ConfigError, match=r"share 12\.5 %"):
        kserve.inference_service(standing(12.5))


def test_kserve_is_told_nothing_that_knative_refuses():
    predictor = kserve.inference_service(standing(5.0, storage_class="gp3"))["spec"]["predictor"]
    assert not {"securityContext", "terminationGracePeriodSeconds", "automountServiceAccountToken"} & set(predictor)
    assert [list(volume) for volume in predictor["volumes"]] == [["name", "emptyDir"]]
    (container,) = predictor["containers"]
    assert not {"lifecycle", "startupProbe"} & set(container)
    assert "runAsGroup" not in container["securityContext"]
    assert [port["name"] for port in container["ports"]] == ["http1"]


def test_a_volume_of_ones_own_asks_for_a_storage_class():
    (deployment,) = of_kind(kubernetes.objects(standing(storage_class="gp3", disk_gib=7)), "Deployment")
    (volume,) = deployment["spec"]["template"]["spec"]["volumes"]
    claim = volume["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert (claim["storageClassName"], claim["resources"]) == ("gp3", {"requests": {"storage": "7Gi"}})
