"""Clients without TensorFlow: the same questions over gRPC (`Client`) and REST (`HttpClient`).

    client = Client("localhost:8500", "mine")
    client.predict(["a.jpg", "b.png"])          # float32 [2, classes]
    client.classify(["a.jpg"], top=3)           # [[("chair", 0.97), ("sofa", 0.02), ...]]

    HttpClient("https://localhost:8501", "mine", headers={"authorization": "Bearer KEY"})

Pictures are paths or encoded bytes, which the server decodes as it did in training, or uint8 arrays
of the net's input size, which are sent as they are; so are clips, voxels and rows of numbers.
"""

import base64
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from striate.errors import UsageError
from striate.serve.status import Code, ServingError, code_of

if TYPE_CHECKING:
    import ssl

    import grpc
    import numpy as np

Picture = Any  # str | os.PathLike | bytes | np.ndarray; numpy is not imported until it is needed


def channel(address: str, credentials: "grpc.ChannelCredentials | None" = None) -> "grpc.Channel":
    """A gRPC connection for messages of any size, with TLS where there are credentials of it."""
    import grpc

    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)


class Client:
    """Asks a server over gRPC. Raises `ServingError`, with the server's code and message.

    address: host:port. version: a number, or None for the newest. timeout: seconds a call.
    headers: metadata of every call, such as an API key (`authorization`), or who asks
    (`x-client-id`). credentials: of TLS, as `grpc.ssl_channel_credentials` makes them.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
        credentials: "grpc.ChannelCredentials | None" = None,
    ):
        from striate.serve import protos

        self._protos = protos
        self._channel = channel(address, credentials)
        self._metadata = [(name.lower(), value) for name, value in (headers or {}).items()]
        self._prediction = protos.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = protos.model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._model, self._version, self._timeout = model, version, timeout

    def predict(self, images: Sequence[Picture]) -> "np.ndarray":
        """Scores, float32 [N, classes]."""
        return self._ask(images, ["scores"])["scores"]

    def classify(
        self, pictures: Sequence[Picture], *, top: int = 5
    ) -> list[list[tuple[str, float]]]:
        """The best `top` (label, score) of each picture (paths or bytes), the best first."""
        _expect_encoded(pictures, top)
        found = self._ask(pictures, ["scores", "classes"])
        labels = [[label.decode() for label in row] for row in found["classes"]]
        return best(labels, found["scores"], top)

    def status(self) -> dict[int, str]:
        """Version -> state (`AVAILABLE`, ...), with the reason where it is not served."""
        request = self._protos.get_model_status_pb2.GetModelStatusRequest()
        self._fill(request.model_spec)
        response = self._call(self._models.GetModelStatus, request)
        states = self._protos.get_model_status_pb2.ModelVersionStatus.State
        return {
            version.version: _state(states.Name(version.state), version.status.error_message)
            for version in response.model_version_status
        }

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, images: Sequence[Picture], outputs: list[str]) -> dict[str, "np.ndarray"]:
        from striate.serve import tensors

        request = self._protos.predict_pb2.PredictRequest()
        self._fill(request.model_spec)
        request.output_filter.extend(outputs)
        if _are_arrays(images):
            request.inputs["image"].CopyFrom(tensors.to_content(stacked(images)))
        else:
            request.model_spec.signature_name = "bytes"
            request.inputs["image_bytes"].CopyFrom(
                tensors.to_proto(tensors.strings([encoded(picture) for picture in images]))
            )
        response = self._call(self._prediction.Predict, request)
        return {
            name: tensors.from_proto(proto, max_bytes=1 << 40)
            for name, proto in response.outputs.items()
        }

    def _fill(self, spec) -> None:
        spec.name = self._model
        if self._version is not None:
            spec.version.value = self._version

    def _call(self, method, request):
        import grpc

        try:
            return method(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise ServingError(Code(error.code().value[0]), error.details()) from None


class HttpClient:
    """Asks a server over REST, with nothing but the standard library and numpy.

    url: http://host:port. timeout: seconds a call. headers: as of `Client`. context: of TLS, where
    the system's authorities will not do. Raises `ServingError`, as `Client` does.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | None = None,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
        context: "ssl.SSLContext | None" = None,
    ):
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"expected a url that begins with http:// or https://, got {url!r}")
        self._base = f"{url.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}"
        if version is not None:
            self._base += f"/versions/{version}"
        self._timeout, self._headers, self._context = timeout, dict(headers or {}), context

    def predict(self, images: Sequence[Picture]) -> "np.ndarray":
        """Scores, float32 [N, classes]."""
        import numpy as np

        if _are_arrays(images):
            scores = self._post({"inputs": stacked(images).tolist()})["outputs"]
        else:
            scores = self._ask_encoded(images)["scores"]
        return np.array(scores, np.float32)

    def classify(
        self, pictures: Sequence[Picture], *, top: int = 5
    ) -> list[list[tuple[str, float]]]:
        """The best `top` (label, score) of each picture (paths or bytes), the best first."""
        import numpy as np

        _expect_encoded(pictures, top)
        found = self._ask_encoded(pictures)
        return best(found["classes"], np.array(found["scores"], np.float32), top)

    def status(self) -> dict[int, str]:
        """Version -> state (`AVAILABLE`, ...), with the reason where it is not served."""
        return {
            int(version["version"]): _state(version["state"], version["status"]["error_message"])
            for version in self._open(self._base)["model_version_status"]
        }

    def _ask_encoded(self, pictures: Sequence[Picture]) -> dict[str, Any]:
        values = [{"b64": base64.b64encode(encoded(picture)).decode()} for picture in pictures]
        return self._post({"signature_name": "bytes", "inputs": {"image_bytes": values}})["outputs"]

    def _post(self, document: dict[str, Any]) -> dict[str, Any]:
        return self._open(f"{self._base}:predict", json.dumps(document).encode())

    def _open(self, url: str, body: bytes | None = None) -> dict[str, Any]:
        kind = {"Content-Type": "application/json"} if body else {}
        request = urllib.request.Request(url, body, {**self._headers, **kind})
        try:
            with urllib.request.urlopen(
                request, timeout=self._timeout, context=self._context
            ) as response:
                return json.load(response)
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise ServingError(
                Code.UNKNOWN, f"{self._base}: expected JSON, got what no model server answers"
            ) from None
        except urllib.error.HTTPError as error:
            raise ServingError(code_of(error.code), _error_in(error.read())) from None
        except TimeoutError:
            raise ServingError(
                Code.DEADLINE_EXCEEDED, f"{self._base}: no answer within {self._timeout:g} s"
            ) from None
        except urllib.error.URLError as error:
            raise ServingError(
                Code.UNAVAILABLE, f"{self._base}: no answer ({error.reason})"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise ServingError(
                Code.UNAVAILABLE, f"{self._base}: the connection broke ({error})"
            ) from None


def best(
    labels: Sequence[Sequence[str]], scores: "np.ndarray", top: int
) -> list[list[tuple[str, float]]]:
    """The `top` pairs of each row, by falling score."""
    order = (-scores).argsort(axis=1, kind="stable")[:, :top]
    return [
        [(names[i], float(row[i])) for i in chosen]
        for names, row, chosen in zip(labels, scores, order, strict=True)
    ]


def encoded(picture: Picture) -> bytes:
    """The bytes of a picture file; a path is read."""
    if isinstance(picture, bytes):
        return picture
    try:
        return Path(picture).read_bytes()
    except OSError as error:
        raise UsageError(f"{picture}: cannot be read ({error.strerror})") from None


def stacked(images: Sequence[Picture]) -> "np.ndarray":
    """uint8 [N, H, W, C] of pictures [H, W, C], or of an array that is that already.

    Clips and voxels have an axis more; rows of numbers become float32 [N, numbers].
    """
    import numpy as np

    array = np.asarray(images)
    if array.ndim == 2 and array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype != np.uint8 or array.ndim not in (4, 5):
        raise UsageError(
            f"expected uint8 images [N, H, W, C] of one size, got {array.dtype} {list(array.shape)}"
        )
    return array


def _are_arrays(images: Sequence[Picture]) -> bool:
    if isinstance(images, str | bytes | os.PathLike) or len(images) == 0:
        raise UsageError(f"expected a list of pictures, at least one, got {images!r}")
    return not isinstance(images[0], str | bytes | os.PathLike)


def _expect_encoded(pictures: Sequence[Picture], top: int) -> None:
    if top < 1:
        raise UsageError(f"expected top of at least 1, got {top}")
    if _are_arrays(pictures):
        raise UsageError("expected paths or encoded pictures; ask `predict` about arrays")


def _state(state: str, message: str) -> str:
    return f"{state}: {message}" if message else state


def _error_in(body: bytes) -> str:
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")
