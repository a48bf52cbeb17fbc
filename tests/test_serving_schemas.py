"""The Kubernetes and KServe manifests in serving/, held to those projects' own schemas, offline.

Kubernetes' are in the package kubernetes-validate. KServe's are in the package kserve, as tables of
the fields of each object; that package wants other versions of much else, so it is only looked at,
never imported: `pip install --no-deps kserve`.
"""

import ast
import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from making import ROOT

kubernetes = pytest.importorskip(
    "kubernetes_validate", reason="needs Kubernetes' schemas: pip install kubernetes-validate"
)

SERVING = ROOT / "serving"
OLDEST = "1.29"  # what is served must fit clusters from here on
PLAIN = {"str": str, "bool": bool, "int": int, "float": (int, float)}


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((SERVING / name).read_text()))


@pytest.mark.parametrize("version", [OLDEST, kubernetes.latest_version()])
def test_the_deployment_is_what_kubernetes_takes(version):
    for document in documents("kubernetes.yaml"):
        kubernetes.validate(document, version, strict=True)


def test_a_misspelt_field_would_be_found():
    deployment = copy.deepcopy(documents("kubernetes.yaml")[0])
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes.ValidationError, match="readynessProbe"):
        kubernetes.validate(deployment, kubernetes.latest_version(), strict=True)


@pytest.fixture(scope="module")
def kserve() -> Path:
    """The folder of KServe's models."""
    found = find_spec("kserve")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs KServe's schemas: pip install --no-deps kserve")
    return Path(next(iter(found.submodule_search_locations))) / "models"


def table(kserve: Path, kind: str) -> dict[str, str] | None:
    """The fields of an object as they are written, and their types; None if KServe has no such."""
    for path in kserve.glob("v1*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name == kind:
                assigned = (each for each in node.body if isinstance(each, ast.Assign))
                found = {each.targets[0].id: ast.literal_eval(each.value) for each in assigned}
                types, names = found["openapi_types"], found["attribute_map"]
                return {names[field]: types[field] for field in types}
    return None


def check(kserve: Path, kind: str, value: Any, where: str) -> None:
    """Hold a value to a type of KServe's tables, or of Kubernetes'."""
    if kind.startswith("list["):
        assert isinstance(value, list), where
        for i, each in enumerate(value):
            check(kserve, kind[5:-1], each, f"{where}[{i}]")
    elif kind.startswith("dict("):
        assert all(isinstance(each, str) for pair in value.items() for each in pair), where
    elif kind in PLAIN:
        assert isinstance(value, PLAIN[kind]), f"{where}: expected {kind}, got {value!r}"
    elif kind == "V1Container":
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}}
        pod["spec"] = {"containers": [value]}
        kubernetes.validate(pod, kubernetes.latest_version(), strict=True)
    elif kind == "V1ObjectMeta":
        service = {"apiVersion": "v1", "kind": "Service", "metadata": value}
        kubernetes.validate(service, kubernetes.latest_version(), strict=True)
    else:
        fields = table(kserve, kind)
        assert fields is not None, f"{where}: nobody knows what a {kind} is"
        assert value.keys() <= fields.keys(), f"{where}: {value.keys() - fields.keys()}"
        for name, each in value.items():
            check(kserve, fields[name], each, f"{where}.{name}")


@pytest.fixture
def manifests() -> list[tuple[str, dict]]:
    """(KServe's name of the object, the object)"""
    kinds = {
        "ServingRuntime": "V1alpha1ServingRuntime",
        "InferenceService": "V1beta1InferenceService",
    }
    found = [(kinds[document["kind"]], document) for document in documents("kserve.yaml")]
    assert [kind for kind, _ in found] == list(kinds.values())
    return found


def test_the_runtime_and_its_service_are_what_kserve_takes(kserve, manifests):
    for kind, document in manifests:
        version = kind.removeprefix("V1").removesuffix(document["kind"])
        assert document["apiVersion"] == f"serving.kserve.io/v1{version}"
        check(kserve, kind, document, document["kind"])


def test_a_misspelt_field_of_kserve_would_be_found(kserve, manifests):
    (runtime, broken), (service, wrong) = copy.deepcopy(manifests)
    broken["spec"]["supportedModelFormat"] = broken["spec"].pop("supportedModelFormats")
    with pytest.raises(AssertionError, match=r"spec: \{'supportedModelFormat'\}"):
        check(kserve, runtime, broken, runtime)
    wrong["spec"]["predictor"]["model"]["storageUri"] = 1
    with pytest.raises(AssertionError, match=r"storageUri: expected str, got 1"):
        check(kserve, service, wrong, service)
