"""The files in serving/: they parse, and flags, ports, paths and metrics in them exist."""

import configparser
import json
import re
import shutil
import subprocess

import pytest
import yaml

from making import ROOT
from striate.serve import keys
from striate.serve.core import Core
from striate.serve.flags import parse
from striate.serve.observe.metrics import PATH, families
from striate.serve.options import ServerOptions
from striate.serve.repository import Repository
from striate.serve.scheduler import Scheduler

SERVING = ROOT / "serving"
OPEN_PATHS = ["/healthz", *(method.split()[1] for method in keys.PROBES if method[:4] == "GET ")]

# prometheus_client's ProcessCollector has these where the system tells them
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total"}


@pytest.fixture(scope="module")
def series() -> set[str]:
    """The name of every series that a server offers."""
    core = Core(Repository([], open), Scheduler(1, 1), 1)
    found = set(PROCESS)
    for family in families(core):
        parts = ["_bucket", "_sum", "_count"] if family.kind == "histogram" else [""]
        found |= {family.name + part for part in parts}
    return found


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((SERVING / name).read_text()))


def asked_for(expression: str) -> set[str]:
    """The names of our series in a query."""
    return set(re.findall(r"(?:\b(?:striate|process)_|:tensorflow:)[\w:]+", expression))


def options(arguments: list[str]) -> ServerOptions:
    found, notes = parse(arguments)
    assert notes == []
    return ServerOptions(**found)


def test_the_dashboard_asks_for_series_that_there_are(series):
    board = json.loads((SERVING / "grafana.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [v["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    assert len(queries) > len(board["panels"]) > 10
    for query in queries:
        assert asked_for(query), query
        assert asked_for(query) <= series
        assert query.count("(") == query.count(")")
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == len(board["panels"])


def test_the_alerts_ask_for_series_that_there_are(series):
    (alerts,) = documents("alerts.yml")
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 3
    for rule in rules:
        assert asked_for(rule["expr"]), rule["alert"]
        assert asked_for(rule["expr"]) <= series


def test_an_alert_hears_of_what_is_refused_before_its_model_is_known():
    """Under too much load that is most of it, and no request of any model."""
    (alerts,) = documents("alerts.yml")
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert any('striate_refused_total{code=~"UNAVAILABLE' in rule["expr"] for rule in rules)


def test_an_alert_hears_of_a_version_that_is_not_served():
    """Since the one before it goes on answering, nobody else does."""
    (alerts,) = documents("alerts.yml")
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert any('load_attempt_count{status="fail"}' in rule["expr"] for rule in rules)


def test_prometheus_scrapes_our_path():
    (config,) = documents("prometheus.yml")
    assert config["scrape_configs"][0]["metrics_path"] == PATH
    assert all((SERVING / name).is_file() for name in config["rule_files"])


def test_the_unit_starts_the_server_by_flags_that_there_are(tmp_path):
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read_string((SERVING / "striate.service").read_text().replace("\\\n", " "))
    service = unit["Service"]
    program, verb, *arguments = service["ExecStart"].split()
    assert (program, verb) == ("/opt/striate/bin/striate", "serve")
    assert options(arguments).access_log == "/var/log/striate/access.jsonl"
    assert service["LogsDirectory"] == "striate"
    assert int(service["TimeoutStopSec"]) > options(arguments).drain_seconds
    if shutil.which("systemd-analyze"):
        text = (SERVING / "striate.service").read_text().replace(program, "/bin/true")
        (tmp_path / "striate.service").write_text(text)
        command = ["systemd-analyze", "verify", tmp_path / "striate.service"]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert "striate.service" not in ran.stderr


def test_the_deployment_and_the_service_fit_the_server_and_each_other():
    deployment, service = documents("kubernetes.yaml")
    assert (deployment["kind"], service["kind"]) == ("Deployment", "Service")
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    told = options(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": told.port, "http": told.rest_api_port}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports.keys()
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] in OPEN_PATHS  # a probe has no key
        assert ports[asked["port"]] == told.rest_api_port
    alive = container["livenessProbe"]["httpGet"]["path"]
    assert container["startupProbe"]["httpGet"]["path"] == alive != "/healthz"  # of all models
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > told.drain_seconds + pause
    about = deployment["spec"]["template"]["metadata"]["annotations"]
    assert about["prometheus.io/port"] == str(told.rest_api_port)
    assert about["prometheus.io/path"] == PATH
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_kserve_runtime_fits_the_server():
    runtime, service = documents("kserve.yaml")
    assert (runtime["kind"], service["kind"]) == ("ServingRuntime", "InferenceService")
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"  # KServe looks for it by this name
    told = options(container["args"])
    assert str(told.model_base_path) == "/mnt/models"  # where KServe puts what storageUri holds
    assert container["ports"][0]["containerPort"] == told.rest_api_port
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in OPEN_PATHS
        assert container[probe]["httpGet"]["port"] == told.rest_api_port
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/path"] == PATH
    model = service["spec"]["predictor"]["model"]
    formats = runtime["spec"]["supportedModelFormats"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in {known["name"] for known in formats}
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_every_file_is_told_of():
    told = (SERVING / "README.md").read_text()
    names = [path.name for path in SERVING.iterdir() if path.is_file() and path.name != "README.md"]
    assert [name for name in names if f"]({name})" not in told] == []
