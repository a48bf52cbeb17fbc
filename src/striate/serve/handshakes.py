"""Handshakes of TLS that fail: counted, and said in the log, of many one line a second."""

import ssl
from collections.abc import Callable

from striate.serve.observe.counters import Counters
from striate.serve.seldom import Seldom

_PLAIN = "it speaks no TLS"
_WORDS = {
    "HTTP_REQUEST": _PLAIN,
    "WRONG_VERSION_NUMBER": _PLAIN,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who signed the server's certificate",
}


class Handshakes:
    """Those of a listener; entrypoint: GRPC or REST."""

    def __init__(self, entrypoint: str, counters: Counters):
        self._entrypoint, self._counters = entrypoint, counters
        self._log = Seldom()

    def failed(self, client: str, error: ssl.SSLError) -> None:
        """Take note of one. A client that left without a word is none: so do those that only look
        whether a port is open."""
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return
        self._counters.unshaken(self._entrypoint)
        self._log.warn("%s: TLS over %s failed: %s", client, self._entrypoint, reason(error))


def reason(error: ssl.SSLError) -> str:
    """Why a handshake failed, about the client."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({error.verify_message})"
    name = error.reason or str(error)
    return _WORDS.get(name, name.lower().replace("_", " "))


def watch(context: ssl.SSLContext, failed: Callable[[ssl.SSLError], None]) -> None:
    """Have it told why handshakes of a context fail, which asyncio keeps to itself."""

    class Telling(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                failed(error)
                raise

    context.sslobject_class = Telling
