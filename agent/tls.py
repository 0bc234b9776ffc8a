"""TLS contexts for connections to the broker."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from agent.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import TlsConfig


class NamedContext(ssl.SSLContext):
    """Verifies against a name of its own choice, whatever host is connected to.

    Attributes:
        name: what the peer's certificate must be issued for; None: the host connected to.
        wrapped: the last socket wrapped, for whoever has to close it when the handshake fails.
    """

    name: str | None = None
    wrapped: ssl.SSLSocket | None = None

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """As `ssl.SSLContext.wrap_socket`."""
        if self.name is not None:
            kwargs["server_hostname"] = self.name
        self.wrapped = super().wrap_socket(*args, **kwargs)
        return self.wrapped


def client_context(config: TlsConfig) -> NamedContext:
    """A context that verifies the broker, and shows a client certificate where one is configured.

    Raises:
        ConfigError: a file is missing, unreadable or not what it should be.
    """
    context = NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.name = config.server_name
    if config.ca_file is None:
        context.load_default_certs()
    else:
        _check_readable(config.ca_file, "mqtt.tls.ca_file")
        try:
            context.load_verify_locations(config.ca_file)
        except ssl.SSLError as error:
            raise ConfigError(
                f"mqtt.tls.ca_file: {config.ca_file} holds no certificate in PEM form"
            ) from error
    if config.cert_file is not None and config.key_file is not None:
        _load_client(context, config, config.cert_file, config.key_file)
    return context


def _load_client(context: NamedContext, config: TlsConfig, cert: Path, key: Path) -> None:
    _check_readable(cert, "mqtt.tls.cert_file")
    _check_readable(key, "mqtt.tls.key_file")
    secret = config.key_password
    # Without a password OpenSSL would ask the terminal for one.
    password = "" if secret is None else secret.get_secret_value()
    try:
        context.load_cert_chain(cert, key, lambda: password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"mqtt.tls.key_file: {key} is not the private key of {cert}"
            ) from error
        encrypted = b"ENCRYPTED" in key.read_bytes()
        what = "mqtt.tls.key_password does not open it" if encrypted else "one is not in PEM form"
        raise ConfigError(
            f"mqtt.tls: certificate {cert} and key {key} cannot be used: {what}"
        ) from error


def _check_readable(path: Path, key: str) -> None:
    """OpenSSL's own errors do not name the file."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{key}: cannot read {path}: {error.strerror}") from error
