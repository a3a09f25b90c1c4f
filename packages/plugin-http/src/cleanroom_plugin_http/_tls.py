"""How a service's certificate is checked, in arguments and in the metadata of handles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cleanroom import ValidationError


class Tls(NamedTuple):
    """How the service's certificate is checked.

    Attributes:
        ca: Path of the certificates to trust; empty for those of the HTTP library.
        verify: Whether it is checked at all.
    """

    ca: str = ""
    verify: bool = True

    def facts(self) -> dict[str, str]:
        """Return what handles carry of it."""
        return {"tls_ca": self.ca, "tls_verify": "yes" if self.verify else "no"}


def check_tls(ca: str | os.PathLike[str] | None, verify: object) -> Tls:
    """Return what was said of the certificate.

    Raises:
        ValidationError: It contradicts itself, or there are no such certificates.
    """
    if not isinstance(verify, bool):
        raise ValidationError(f"verify is {verify!r}", hint="it is true or false")
    if ca is None:
        return Tls(verify=verify)
    if not verify:
        raise ValidationError(
            "ca was given and verify is false", hint="give one of the two: ca is for checking"
        )
    if not Path(ca).exists():
        raise ValidationError(f"ca is {os.fspath(ca)!r}", hint="there is no such file")
    if Path(ca).is_file():
        _check_certificates(os.fspath(ca))
    return Tls(str(Path(ca).absolute()))


def _check_certificates(file: str) -> None:
    import ssl  # Here, because most services have no use for it.

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError as exc:
        raise ValidationError(
            f"ca is {file!r}, which has no certificates: {exc.reason or exc}",
            hint="it is a file of certificates in PEM, or a folder as OpenSSL has it",
        ) from exc


def verify_option(metadata: Mapping[str, str]) -> str | bool:
    """Return the option `verify` of the HTTP library for a service with this metadata."""
    return metadata.get("tls_ca") or metadata.get("tls_verify") != "no"
