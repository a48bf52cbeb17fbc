"""Whether the server in a container answers: what the Dockerfile's HEALTHCHECK runs.

    python -m striate.serve.alive

The flags of the container's first process say where to ask, and whether with TLS. What is asked is
/healthz; where there is no REST, or only clients with a certificate are let in, it is enough that
the port takes a connection, which it does from when the models are loaded.
"""

import http.client
import socket
import ssl
import sys
from pathlib import Path

from striate.errors import StriateError
from striate.serve.flags import parse
from striate.serve.options import ServerOptions

SECONDS = 2.0  # to wait for an answer
LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # of every interface, the one to ask


def options_of(process: Path) -> ServerOptions:
    """What a process, a directory of /proc, was told behind `striate serve`."""
    words = (process / "cmdline").read_text("utf-8", "surrogateescape").rstrip("\0").split("\0")
    if "serve" not in words:
        raise StriateError(f"expected striate serve as the process {process}, got {words[:3]}")
    return ServerOptions(**parse(words[words.index("serve") + 1 :])[0])


def check(options: ServerOptions) -> None:
    """Ask the server with these options; raises `StriateError` or `OSError` where it is not well.

    No certificate is looked at: it is for a name that others ask by.
    """
    host, port = LOCAL.get(options.host, options.host), options.rest_api_port or options.port
    secure = bool(options.ssl_config_file) and options.rest_api_ssl
    if options.rest_api_port and not (secure and _wants_certificate(options)):
        _ask(host, port, secure)
    elif port:
        socket.create_connection((host, port), SECONDS).close()
    else:
        with socket.socket(socket.AF_UNIX) as connected:
            connected.connect(options.grpc_socket_path)


def _wants_certificate(options: ServerOptions) -> bool:
    from striate.serve.secure import Tls

    return Tls.read(options.ssl_config_file).client_verify


def _ask(host: str, port: int, secure: bool) -> None:
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    connection.request("GET", "/healthz")
    response = connection.getresponse()
    if response.status != 200:
        raise StriateError(f"/healthz: {response.status} {response.read(200)!r}")


if __name__ == "__main__":
    try:
        check(options_of(Path("/proc", *(sys.argv[1:] or ["1"]))))
    except (StriateError, OSError, http.client.HTTPException) as error:
        sys.exit(f"{type(error).__name__}: {error}")
