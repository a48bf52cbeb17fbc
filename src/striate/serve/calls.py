"""One call of a client, whatever protocol brought it: who asks, what for, and how it ended.

A face makes a `Call` for each request, answers within `during(call)`, and hands it to
`Core.finished`. Whoever is asked deeper inside (the core) finds it by `current()`.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from striate.serve.keys import ApiKey
from striate.serve.observe.counters import Asked
from striate.serve.status import Code

ID_HEADER = "x-request-id"
CLIENT_HEADER = "x-client-id"
TRACE_HEADERS = ("traceparent", "tracestate")  # W3C Trace Context

_SPEAKABLE = re.compile(r"[!-~]{1,128}")  # an id that is safe in a header and in a line of a log


def request_id(given: str | None = None) -> str:
    """The client's id for its request where it has a fit one, else one of 16 hexadecimal digits."""
    return given if given and _SPEAKABLE.fullmatch(given) else os.urandom(8).hex()


def trace_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Those of a call's headers that name its client's own span."""
    return {name: headers[name] for name in TRACE_HEADERS if name in headers}


def address(host: str, port: int) -> str:
    """host:port as clients write it, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def client_of(given: str | None, peer: str) -> str:
    """Who a client says that it is (`x-client-id`), else the address that it calls from: the same
    over gRPC (`ipv6:[::1]:8500`) and REST (`[::1]:8501`)."""
    host = peer.removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")[0]
    return given or host.strip("[]").removeprefix("::ffff:")  # IPv4, where the socket is for both


@dataclass
class Call:
    """What is known of a call; the parts that are found out while it is answered come last.

    entrypoint: GRPC or REST; api: what TensorFlow Serving calls it: Predict, Classify, ...; method:
    the RPC, or the HTTP method and path. client: what is the same for all its calls (see
    `client_of`). id: the client's, or made; own_id: whether it is made. trace: see `trace_of`.
    placed: whether it has a place in the scheduler already. key: that it shows. model: that it
    asks. asked: the last request that reached a model. received, sent: bytes of the messages, None
    for streams. status: of the answer over HTTP.
    """

    entrypoint: str = ""
    api: str = ""
    method: str = ""
    peer: str = ""
    client: str = ""
    id: str = field(default_factory=request_id)
    own_id: bool = True
    trace: dict[str, str] = field(default_factory=dict)
    placed: bool = False
    key: ApiKey | None = None
    code: Code = Code.OK
    model: str = ""
    asked: Asked | None = None
    received: int | None = None
    sent: int | None = None
    status: int | None = None
    begun: float = field(default_factory=time.monotonic)
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        """From when the call was taken up until its answer was ready to be sent."""
        return self.ended - self.begun

    def named(self, id: str) -> None:
        """Take the id that a message itself carries, unless its header had one."""
        if self.own_id and _SPEAKABLE.fullmatch(id):
            self.id, self.own_id = id, False


def call_of(
    headers: Mapping[str, str], peer: str, *, entrypoint: str, api: str, method: str
) -> Call:
    """The call that a face takes up; headers: by their names in lower case."""
    given = headers.get(ID_HEADER)
    id = request_id(given)
    return Call(
        entrypoint=entrypoint,
        api=api,
        method=method,
        peer=peer,
        client=client_of(headers.get(CLIENT_HEADER), peer),
        id=id,
        own_id=id != given,
        trace=trace_of(headers),
    )


_CURRENT: ContextVar[Call] = ContextVar("call")


@contextmanager
def during(call: Call) -> Iterator[None]:
    """What happens in the block, on this thread, is this call's."""
    token = _CURRENT.set(call)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current() -> Call:
    """The call that is being answered; a blank one where nobody's is."""
    return _CURRENT.get(None) or Call()
