"""TLS for both ports, by TensorFlow Serving's SSLConfig: keys and certificates as PEM text.

Certificates expire, so the file is looked at again: who connects after it changed meets what it
says then, and connections that are open go on.
"""

import contextlib
import re
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from striate.errors import UsageError
from striate.serve import text_configs
from striate.serve.watched import Watched

_SERVER = ssl.PROTOCOL_TLS_SERVER
_END = "-----END CERTIFICATE-----"


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
        pems = ("server_key", "PRIVATE KEY-----"), ("server_cert", "CERTIFICATE-----")
        for name, word in pems:
            if not re.search(f"-----BEGIN ([A-Z]+ )*{word}", getattr(found, name)):
                # What it holds is not shown: it may be the key.
                raise UsageError(f"{path}: expected {name} as PEM text, -----BEGIN ... {word}")
        if found.client_verify and not found.custom_ca:
            raise UsageError(f"{path}: client_verify needs custom_ca, the clients' authority")
        try:
            found.context()
            found.try_certificate()
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
        return found

    def context(self, *protocols: str) -> ssl.SSLContext:
        """For a listener that speaks these protocols (ALPN's names), if it says which."""
        context = ssl.SSLContext(_SERVER)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        _load_chain(context, self.server_key, self.server_cert)
        if self.custom_ca:
            try:
                context.load_verify_locations(cadata=self.custom_ca)
            except (ssl.SSLError, ValueError) as error:
                raise UsageError(f"custom_ca holds no certificate ({error})") from None
        context.verify_mode = ssl.CERT_REQUIRED if self.client_verify else ssl.CERT_NONE
        return context

    def try_certificate(self) -> None:
        """Shake hands with a client that trusts this very certificate; `UsageError` where even that
        one refuses it: it has expired, say, or is not for servers."""
        certificate = "".join(self.server_cert.partition(_END)[:2])  # of its chain, the first
        server, client = (ssl.SSLContext(kind) for kind in (_SERVER, ssl.PROTOCOL_TLS_CLIENT))
        _load_chain(server, self.server_key, certificate)
        client.check_hostname = False  # names are for those who ask by them
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        try:
            client.load_verify_locations(cadata=certificate[certificate.find("-----BEGIN") :])
            ends = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
            for end in (*ends, ends[0]):  # hello, certificate, verdict
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "verify_message", error)
            raise UsageError(f"clients refuse this server_cert: {reason}") from None


def _load_chain(context: ssl.SSLContext, key: str, chain: str) -> None:
    """Have a context show a certificate. Python reads keys from files alone, so this one is in a
    file for a moment."""

    def ask() -> NoReturn:  # else OpenSSL would ask whoever sits at the terminal
        raise UsageError("expected a server_key without a pass phrase (see openssl pkey)")

    try:
        with tempfile.NamedTemporaryFile("w") as pem:  # readable by this user alone
            pem.write(f"{key}\n{chain}\n")
            pem.flush()
            context.load_cert_chain(pem.name, password=ask)
    except (ssl.SSLError, ValueError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            raise UsageError("server_key is not the key of server_cert") from None
        damaged = "server_key" if _can_be_read(chain) else "server_cert"
        raise UsageError(f"{damaged} is damaged, OpenSSL cannot read it ({error})") from None
    except OSError as error:
        why = f"no temporary file can be written for the key ({error.strerror})"
        raise UsageError(why) from None


def _can_be_read(chain: str) -> bool:
    """Whether there are certificates in a chain, each of them whole."""
    try:
        ssl.SSLContext(_SERVER).load_verify_locations(cadata=chain[chain.find("-----BEGIN") :])
    except (ssl.SSLError, ValueError):
        return False
    return chain.count("-----BEGIN") == chain.count("-----END")


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
