"""What Prometheus reads, over a real socket, by prometheus_client's own parser."""

import urllib.error
import urllib.request

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from served import ServerProcess
from striate.errors import UsageError
from striate.serve.client import Client, HttpClient
from striate.serve.core import Core
from striate.serve.counters import BUCKETS
from striate.serve.listeners import metrics_paths
from striate.serve.metrics import _gauge, families, written
from striate.serve.options import ServerOptions
from striate.serve.repository import Repository
from striate.serve.scheduler import Scheduler
from striate.serve.status import ServingError

pytest_plugins = ["serving_fixtures"]

SERVING = ":tensorflow:serving:"


def scraped(url: str) -> tuple[dict[str, str], dict[tuple, float]]:
    """(family -> kind, (sample, its sorted labels) -> value); counters get _total here."""
    with urllib.request.urlopen(url) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        found = list(text_string_to_metric_families(response.read().decode()))
    samples = {(s.name, *sorted(s.labels.items())): s.value for f in found for s in f.samples}
    return {family.name: family.type for family in found}, samples


def sample(samples, name: str, **labels: str) -> float:
    return samples[(name, *sorted(labels.items()))]


@pytest.fixture(scope="module")
def watched(tiny, tmp_path_factory):
    """A server whose metrics are where TensorFlow Serving has them, too."""
    config = tmp_path_factory.mktemp("config") / "monitoring"
    config.write_text("prometheus_config { enable: true }")
    with ServerProcess(tiny.path.parent, monitoring_config_file=str(config)) as server:
        yield server


@pytest.fixture(scope="module")
def before(watched):
    return scraped(f"{watched.url}/metrics")


@pytest.fixture(scope="module")
def after(watched, before, tiny):
    """After three good requests of 1, 2 and 3 pictures, a bad one, and one about no model."""
    images, _ = tiny.goldens()
    with Client(watched.address, "tiny") as client, Client(watched.address, "nobody") as other:
        client.predict(images[:1])
        client.predict(images[:2])
        with pytest.raises(ServingError):
            client.predict(np.zeros((1, 5, 5, 3), np.uint8))
        with pytest.raises(ServingError):
            other.predict(images[:1])
    HttpClient(watched.url, "tiny").predict(images[:3])
    return scraped(f"{watched.url}/metrics")[1]


def test_families_are_announced_before_the_first_request(before):
    kinds, _ = before
    assert kinds[f"{SERVING}request_count"] == "counter"
    assert kinds[f"{SERVING}request_latency"] == "histogram"
    assert kinds[f"{SERVING}runtime_latency"] == "histogram"
    assert kinds["striate_queue_seconds"] == "histogram"


def test_tensorflow_servings_counters_have_no_total_in_their_names(watched, after):
    with urllib.request.urlopen(f"{watched.url}/metrics") as response:
        lines = response.read().decode().splitlines()
    assert f"# TYPE {SERVING}request_count counter" in lines
    assert f'{SERVING}request_count{{model_name="tiny",status="OK"}} 3' in lines


def test_tensorflow_servings_path_says_the_same(watched, before):
    kinds, _ = scraped(f"{watched.url}/monitoring/prometheus/metrics")
    assert kinds == before[0]


def test_tensorflow_servings_families_have_its_labels_and_microseconds(after):
    for status, count in {"OK": 3, "INVALID_ARGUMENT": 1}.items():
        name = f"{SERVING}request_count_total"
        assert sample(after, name, model_name="tiny", status=status) == count
    asked = {"model_name": "tiny", "API": "Predict"}
    name = f"{SERVING}request_latency"
    assert sample(after, f"{name}_count", entrypoint="GRPC", **asked) == 2
    assert sample(after, f"{name}_count", entrypoint="REST", **asked) == 1
    assert sample(after, f"{name}_bucket", entrypoint="GRPC", le="+Inf", **asked) == 2
    assert sample(after, f"{name}_bucket", entrypoint="GRPC", le="10", **asked) == 0
    edges = [dict(key[1:])["le"] for key in after if key[0] == f"{name}_bucket"]
    assert len(set(edges)) == len(BUCKETS) + 1
    computing = sample(after, f"{SERVING}runtime_latency_sum", runtime="onnx", **asked)
    whole = sum(sample(after, f"{name}_sum", entrypoint=e, **asked) for e in ("GRPC", "REST"))
    assert 30 < computing < whole < 60e6  # a lenet5 takes longer than 10 us, and less than 20 s
    assert sample(after, f"{SERVING}request_example_count_total", model="tiny") == 6


def test_ours_tell_versions_and_signatures_apart_and_waiting_from_computing(after):
    one = {"model": "tiny", "version": "1", "signature": "serving_default"}
    assert sample(after, "striate_items_total", **one) == 6
    found = [sample(after, f"striate_{part}_seconds_sum", **one) for part in PARTS]
    assert 0 < found[1] + found[2] <= found[0]
    assert [sample(after, f"striate_{part}_seconds_count", **one) for part in PARTS] == [3, 3, 3]


PARTS = ("request", "queue", "compute")


def test_requests_that_reach_no_model_are_counted_without_their_names(after):
    assert sample(after, "striate_refused_total", entrypoint="GRPC", code="NOT_FOUND") == 1
    assert not [key for key in after if "nobody" in str(key)]


def test_the_states_of_versions_and_of_the_process_are_there(after):
    assert sample(after, "striate_version_state", model="tiny", version="1", state="AVAILABLE") == 1
    assert sample(after, "striate_ready") == 1
    assert sample(after, "striate_in_flight", model="tiny", version="1") == 0
    assert sample(after, "process_resident_memory_bytes") > 1e6


def test_names_cannot_break_the_format():
    name = 'a"b\\c\nd'
    text = written([_gauge("g", "Help.", ("model",), [((name,), 0.5)])])
    (family,) = text_string_to_metric_families(text)
    assert family.samples[0].labels == {"model": name}


def test_without_a_monitoring_config_there_are_metrics_at_our_path_alone(served):
    assert scraped(f"{served.url}/metrics")[0]
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{served.url}/monitoring/prometheus/metrics")
    assert error.value.code == 404


def test_batches_are_a_histogram_of_their_sizes():
    scheduler = Scheduler(1, 1)
    scheduler.batches.update({1: 5, 3: 2, 5000: 1})
    scheduler.padding = 7
    found = {f.name: f for f in families(Core(Repository([], open), scheduler, 1))}
    (histogram,) = text_string_to_metric_families(written([found["striate_batch_size"]]))
    values = {(s.name, s.labels.get("le")): s.value for s in histogram.samples}
    name = "striate_batch_size"
    assert [values[f"{name}_bucket", le] for le in ("1", "2", "4", "1024", "+Inf")] == [
        5,
        5,
        7,
        7,
        8,
    ]
    assert (values[f"{name}_count", None], values[f"{name}_sum", None]) == (8, 5011)
    assert found["striate_batch_padding_total"].lines == [" 7"]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("prometheus_config { enable: true }", ("/metrics", "/monitoring/prometheus/metrics")),
        ('prometheus_config { enable: true path: "/mine" }', ("/metrics", "/mine")),
        ('prometheus_config { path: "/mine" }', ("/metrics",)),
        ("", ("/metrics",)),
    ],
)
def test_a_monitoring_config_adds_its_path(tmp_path, text, paths):
    (tmp_path / "config").write_text(text)
    options = ServerOptions("m", monitoring_config_file=str(tmp_path / "config"))
    assert metrics_paths(options) == paths


def test_a_path_that_is_none_is_said(tmp_path):
    (tmp_path / "config").write_text('prometheus_config { enable: true path: "mine" }')
    options = ServerOptions("m", monitoring_config_file=str(tmp_path / "config"))
    with pytest.raises(UsageError, match="path that begins with /, got 'mine'"):
        metrics_paths(options)
