"""Handshakes of TLS that fail: counted, and said in the log, of many one line a second."""

import logging
import ssl
import time
from collections.abc import Callable

from striate.serve.observe.counters import Counters

log = logging.getLogger("striate.serve")

OFTEN = 1.0  # seconds between two lines

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
        self._said = -OFTEN  # when the last line was, in time.monotonic()
        self._unsaid = 0  # those that failed since

    def failed(self, client: str, error: ssl.SSLError) -> None:
        """Take note of one. A client that left without a word is none: so do those that only look
        whether a port is open."""
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return
        self._counters.unshaken(self._entrypoint)
        now = time.monotonic()
        if now < self._said + OFTEN:
            self._unsaid += 1
            return
        more = f"; so did {self._unsaid} others since the last line" if self._unsaid else ""
        log.warning("%s: TLS over %s failed: %s%s", client, self._entrypoint, reason(error), more)
        self._said, self._unsaid = now, 0


def reason(error: ssl.SSLError) -> str:
    """Why a handshake failed, about the client."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({error.verify_message})"
    name = error.reason or str(error)
    return _WORDS.get(name, name.lower().replace("_", " "))


def watch(context: ssl.SSLContext, failed: Callable[[ssl.SSLError], None]) -> None:
    """Have it told why handshakes of a context fail, which asyncio keeps to itself."""

    class Watched(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                failed(error)
                raise

    context.sslobject_class = Watched
