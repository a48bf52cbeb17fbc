"""The access log: a line for each call, and no call that waits for its line."""

import json
import os
import re
import threading
import time
import urllib.request

import grpc
import numpy as np
import pytest

from served import ServerProcess
from striate.errors import UsageError
from striate.serve.calls import Call, request_id
from striate.serve.client import Client
from striate.serve.observe.access_log import WAITING, AccessLog
from striate.serve.protocols.oip_protos import SERVICE, message
from striate.serve.status import ServingError

pytest_plugins = ["serving_fixtures"]


@pytest.fixture(scope="module")
def logged(tiny, tmp_path_factory):
    """(server, its log)"""
    path = tmp_path_factory.mktemp("logs") / "access.jsonl"
    with ServerProcess(tiny.path.parent, access_log=str(path)) as server:
        yield server, path


def found(path, id: str) -> dict:
    """The line of the call with an id, once it is there."""
    deadline = time.monotonic() + 60
    while True:
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        if matching := [line for line in lines if line["id"] == id]:
            return matching[-1]
        assert time.monotonic() < deadline, "the line did not come"
        time.sleep(0.02)


def rest(server, path: str, body: bytes | None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return urllib.request.urlopen(urllib.request.Request(server.url + path, body, headers))


def lost(server) -> int:
    with rest(server, "/metrics", None) as response:
        return int(re.search(r"\nstriate_access_log_lost_total (\d+)", response.read().decode())[1])


def infer(server, id: str, *metadata, images=None):
    """The answer of ModelInfer, or None where it is refused, and the trailing metadata."""
    request = message("ModelInferRequest")(model_name="tiny", id=id)
    images = np.zeros((2, 32, 32, 3), np.uint8) if images is None else images
    request.inputs.add(name="image", datatype="UINT8", shape=images.shape)
    request.raw_input_contents.append(images.tobytes())
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            type(request).SerializeToString,
            message("ModelInferResponse").FromString,
        )
        try:
            answer, about = call.with_call(request, metadata=metadata, timeout=60)
        except grpc.RpcError as error:
            return None, dict(error.trailing_metadata()), request.ByteSize()
        return answer, dict(about.trailing_metadata()), request.ByteSize()


def test_a_line_says_who_asked_what_and_where_the_time_went(logged):
    server, path = logged
    _, metadata, size = infer(server, "", ("x-request-id", "abc-1"))
    assert metadata["x-request-id"] == "abc-1"
    line = found(path, "abc-1")
    assert (line["protocol"], line["code"], line["key"]) == ("GRPC", "OK", None)
    assert line["method"] == f"/{SERVICE}/ModelInfer"
    assert (line["model"], line["version"], line["signature"]) == ("tiny", 1, "serving_default")
    assert (line["items"], line["received"]) == (2, size)
    assert line["sent"] > 2 * 4 * 4
    assert 0 < line["queue_ms"] + line["compute_ms"] <= line["ms"]
    assert line["peer"].startswith("ipv4:127.0.0.1:")


def test_rest_echoes_the_id_and_refusals_have_lines(logged):
    server, path = logged
    with pytest.raises(urllib.error.HTTPError) as error:
        rest(server, "/v1/models/nobody:predict", b'{"instances": [1]}', X_Request_Id="abc-2")
    assert error.value.headers["x-request-id"] == "abc-2"
    line = found(path, "abc-2")
    assert (line["method"], line["code"]) == ("POST /v1/models/nobody:predict", "NOT_FOUND")
    assert (line["model"], line["version"], line["compute_ms"]) == ("nobody", None, None)
    assert line["received"] == len(b'{"instances": [1]}')


def test_what_concerns_all_models_is_logged_as_about_none_of_them(logged):
    server, path = logged
    rest(server, "/v2/repository/index", b"{}", X_Request_Id="index").close()
    rest(server, "/v2/models/stats", None, X_Request_Id="stats").close()
    rest(server, "/metrics", None, X_Request_Id="metrics").close()
    assert {found(path, id)["model"] for id in ("index", "stats", "metrics")} == {None}


def test_probes_that_were_answered_have_no_lines(logged):
    server, path = logged
    for probe in ("live", "ready"):
        rest(server, f"/v2/health/{probe}", None, X_Request_Id="probe").close()
    with pytest.raises(urllib.error.HTTPError):
        rest(server, "/v2/health/lively", None, X_Request_Id="lively")
    assert found(path, "lively")["code"] == "NOT_FOUND"
    assert '"probe"' not in path.read_text()


def test_resuming_a_model_is_logged_as_about_it(logged):
    server, path = logged
    rest(server, "/v1/models/tiny:resume", b"", X_Request_Id="resume").close()
    assert found(path, "resume")["model"] == "tiny"


def test_the_id_of_a_message_counts_where_there_is_no_header(logged):
    server, path = logged
    assert infer(server, "from-the-message")[1]["x-request-id"] == "from-the-message"
    infer(server, "from-the-message", ("x-request-id", "from-the-header"))
    assert found(path, "from-the-message")["code"] == "OK"
    assert found(path, "from-the-header")["code"] == "OK"


def test_an_id_is_made_where_there_is_none_or_no_fit_one(logged):
    server, path = logged
    with rest(server, "/v1/models/tiny", None) as response:
        made = response.headers["x-request-id"]
    assert found(path, made)["method"] == "GET /v1/models/tiny"
    assert len(made) == 16
    for unfit in ("", "a b", "x" * 129, "ü", 'a\n"b'):
        assert request_id(unfit) != unfit


def test_a_stream_that_its_client_gave_up_is_logged_as_cancelled(logged):
    server, path = logged
    request = message("ModelInferRequest")(model_name="tiny")
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            type(request).SerializeToString,
            message("ModelStreamInferResponse").FromString,
        )
        given_up = threading.Event()

        def requests():
            yield request
            given_up.wait(60)

        answers = call(requests(), metadata=[("x-request-id", "abc-5")], timeout=60)
        assert "inputs" in next(answers).error_message
        answers.cancel()
        given_up.set()
    assert found(path, "abc-5")["code"] == "CANCELLED"


def test_what_is_no_message_is_refused_and_logged(logged):
    server, path = logged
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as error:
            call(b"\xff\xff\xff", metadata=[("x-request-id", "abc-3")], timeout=60)
    assert error.value.code() == grpc.StatusCode.INTERNAL
    assert error.value.details() == "Exception deserializing request!"
    assert (found(path, "abc-3")["code"], found(path, "abc-3")["received"]) == ("INTERNAL", 3)


def test_a_log_that_was_renamed_goes_on_in_a_new_file(logged):
    server, path = logged
    path.rename(path.with_suffix(".1"))
    rest(server, "/v1/models/tiny", None, X_Request_Id="abc-4").close()
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found(path, "abc-4")["code"] == "OK"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
def test_a_full_disk_costs_lines_and_no_request(tiny):
    with ServerProcess(tiny.path.parent, access_log="/dev/full") as server:
        with Client(server.address, "tiny") as client:
            for _ in range(5):
                client.predict(np.zeros((1, 32, 32, 3), np.uint8))
            with pytest.raises(ServingError):
                client.predict(np.zeros((1, 5, 5, 3), np.uint8))
        deadline = time.monotonic() + 60
        while lost(server) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_pipe_that_nobody_reads_costs_lines_and_does_not_wait(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # opened, and never read
    log = AccessLog(str(pipe))
    start = time.monotonic()
    for _ in range(2 * WAITING):
        log.write(Call(id="x"))
    assert time.monotonic() - start < 20
    assert log.lost > 0
    os.close(reader)


def test_a_pipe_whose_reader_is_yet_to_come_does_not_keep_the_server_from_starting(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    log = AccessLog(str(pipe))
    log.write(Call(id="early"))
    deadline = time.monotonic() + 20
    while not log.lost:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log.write(Call(id="late"))
    log.close()
    assert json.loads(os.read(reader, 10_000))["id"] == "late"
    os.close(reader)


def test_closing_writes_what_waits(tmp_path):
    log = AccessLog(str(tmp_path / "log"))
    for number in range(1500):
        log.write(Call(id=str(number)))
    log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [str(number) for number in range(1500)]
    assert log.lost == 0


def test_a_file_that_cannot_be_written_ends_the_start(tmp_path):
    with pytest.raises(UsageError, match=r"access_log .*none/log: cannot be written"):
        AccessLog(str(tmp_path / "none" / "log"))
