"""What Prometheus reads, over a real socket, by prometheus_client's own parser."""

import math
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from served import ServerProcess
from striate.errors import ArtifactError, UsageError
from striate.serve.client import Client, HttpClient
from striate.serve.core import Core
from striate.serve.listeners import metrics_paths
from striate.serve.observe.counters import BUCKETS
from striate.serve.observe.exposition import gauge, written
from striate.serve.observe.metrics import families
from striate.serve.options import ModelConfig, ServerOptions
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
    text = written([gauge("g", "Help.", ("model",), [((name,), 0.5)])])
    (family,) = text_string_to_metric_families(text)
    assert family.samples[0].labels == {"model": name}


def test_what_is_no_number_cannot_break_the_format():
    values = {"a": math.nan, "b": math.inf, "c": -math.inf}
    samples = [((name,), value) for name, value in values.items()]
    (family,) = text_string_to_metric_families(written([gauge("g", "Help.", ("name",), samples)]))
    assert str([sample.value for sample in family.samples]) == "[nan, inf, -inf]"


def test_without_a_monitoring_config_there_are_metrics_at_our_path_alone(served):
    assert scraped(f"{served.url}/metrics")[0]
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{served.url}/monitoring/prometheus/metrics")
    assert error.value.code == 404


def test_batches_are_a_histogram_of_their_sizes():
    scheduler = Scheduler(1, 1)
    scheduler.batches.computed.update({1: 5, 3: 2, 5000: 1})
    scheduler.batches.padding.update({0: 6, 3: 1, 4: 1})
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


@pytest.fixture(scope="module")
def together(tiny, tmp_path_factory):
    """What a server with batching, a warm-up and a request log tells after two requests."""
    directory = tmp_path_factory.mktemp("together")
    (directory / "batching").write_text(
        "max_batch_size { value: 8 } allowed_batch_sizes: [4, 8] "
        'thread_pool_name { value: "pool" } num_batch_threads { value: 2 }'
    )
    options = {
        "enable_batching": True,
        "batching_parameters_file": str(directory / "batching"),
        "request_log_dir": str(directory / "log"),
        "request_log_sampling_rate": 1.0,
    }
    images, _ = tiny.goldens()
    with ServerProcess(tiny.path.parent, **options) as server:
        with Client(server.address, "tiny") as client:
            client.predict(images[:3])
            client.predict(images[:1])
        wanted = 'request_log_count{model_name="tiny",status_code="OK"} 2'
        deadline = time.monotonic() + 60
        while wanted not in text(server.url):  # a thread of its own writes
            assert time.monotonic() < deadline
        yield scraped(f"{server.url}/metrics")


def text(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics") as response:
        return response.read().decode()


def test_tensorflow_servings_families_about_batching(together):
    kinds, samples = together
    session = f"{SERVING}batching_session:"
    for name, number, total in [
        ("input_batch_size", 2, 4),
        ("processed_batch_size", 2, 8),  # each alone, and filled up to 4
        ("padding_size", 2, 4),
    ]:
        assert kinds[session + name] == "histogram"
        assert sample(samples, f"{session}{name}_count") == number
        assert sample(samples, f"{session}{name}_sum") == total
    assert sample(samples, f"{session}wrapped_run_count_total") == 2
    assert sample(samples, f"{session}queuing_latency_count", thread_pool_name="pool") == 2
    waited = sample(samples, f"{session}queuing_latency_sum", thread_pool_name="pool")
    assert 0 < waited < 60e6  # microseconds
    edges = [dict(key[1:])["le"] for key in samples if key[0] == f"{session}queuing_latency_bucket"]
    assert len(edges) == 53
    assert sample(samples, f"{SERVING}request_example_counts_sum", model="tiny") == 4
    assert sample(samples, f"{SERVING}request_example_counts_bucket", model="tiny", le="2") == 1


def test_tensorflow_servings_families_about_loading(together, tiny):
    _, samples = together
    path = str(tiny.path)
    attempts = ":tensorflow:cc:saved_model:load_attempt_count_total"
    assert sample(samples, attempts, model_path=path, status="success") == 1
    warm_up = f"{SERVING}model_warmup_latency"
    assert sample(samples, f"{warm_up}_count", model_path=path, status="OK") == 1
    assert 0 < sample(samples, f"{warm_up}_sum", model_path=path, status="OK") < 60e6
    assert sample(samples, f"{SERVING}model_warmup_records_read_total", model_path=path) >= 1


def test_a_version_that_fails_to_load_is_an_attempt_that_failed(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "striate.json").touch()

    def refuse(path):
        raise ArtifactError("broken")

    repository = Repository([], refuse)
    repository.configure([ModelConfig("m", tmp_path / "m")])
    text = written(families(Core(repository, Scheduler(1, 1), 1)))
    path = tmp_path / "m" / "1"
    assert f'load_attempt_count{{model_path="{path}",status="fail"}} 1\n' in text
