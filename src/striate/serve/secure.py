"""TLS for both ports, by TensorFlow Serving's SSLConfig: keys and certificates as PEM text.

Certificates expire, so the file is looked at again: who connects after it changed meets what it
says then, and connections that are open go on.
"""

import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from striate.errors import UsageError
from striate.serve import text_configs
from striate.serve.watched import Watched


@dataclass(frozen=True)
class Tls:
    """A key and a certificate chain; `custom_ca` signs the clients, who must show a certificate
    when `client_verify` is set."""

    server_key: str
    server_cert: str
    custom_ca: str = ""
    client_verify: bool = False

    @classmethod
    def read(cls, path: str | Path) -> "Tls":
        """The SSLConfig in a file; `UsageError` for one that nobody could connect with."""
        message = text_configs.read(path, "SSLConfig")
        found = cls(
            message.server_key, message.server_cert, message.custom_ca, message.client_verify
        )
        if not (found.server_key and found.server_cert):
            raise UsageError(f"{path}: expected server_key and server_cert, as PEM text")
        if found.client_verify and not found.custom_ca:
            raise UsageError(f"{path}: client_verify needs custom_ca, the clients' authority")
        try:
            found.context()
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        return found

    def context(self, *protocols: str) -> ssl.SSLContext:
        """For a listener that speaks these protocols (ALPN's names), if it says which.

        Python reads keys from files alone, so they are in one for a moment.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        with tempfile.NamedTemporaryFile("w") as pem:  # readable by this user alone
            pem.write(f"{self.server_key}\n{self.server_cert}\n")
            pem.flush()
            try:
                context.load_cert_chain(pem.name)
                if self.custom_ca:
                    context.load_verify_locations(cadata=self.custom_ca)
            except (ssl.SSLError, ValueError) as error:
                raise UsageError(f"the SSLConfig holds no key and certificate ({error})") from None
        context.verify_mode = ssl.CERT_REQUIRED if self.client_verify else ssl.CERT_NONE
        return context


class RenewedTls:
    """The TLS of listeners, which `refresh` renews by its SSLConfig."""

    def __init__(self, path: str | Path):
        self._file = Watched(path, Tls.read, "key and certificate")
        self._given: list[tuple[ssl.SSLContext, tuple[str, ...]]] = []

    def context(self, *protocols: str) -> ssl.SSLContext:
        """As `Tls.context`, of whatever the file says when a client connects."""
        context = self._file.said.context(*protocols)
        self._given.append((context, protocols))
        return context

    def refresh(self) -> None:
        """Read the file again if it changed; one that is broken changes nothing."""
        if self._file.refresh():
            for context, protocols in self._given:
                _renew(context, self._file.said.context(*protocols))


def _renew(context: ssl.SSLContext, latest: ssl.SSLContext) -> None:
    """Have the clients of a context, which listeners keep, meet another one."""

    def meet(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: object) -> None:
        connection.context = latest

    context.sni_callback = meet  # called for those that name no server, too
    context.verify_mode = latest.verify_mode  # this alone a connection has from the first
