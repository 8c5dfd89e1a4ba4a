"""Whose certificates are believed."""

import ssl
from collections.abc import Sequence


def tls_context(ca_file: str | None, protocols: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
    """The system's authorities, or those of a file or of a PEM text; `protocols` are offered (ALPN). Raises OSError."""
    if ca_file is not None and "-----BEGIN" in ca_file:
        context = ssl.create_default_context(cadata=ca_file)
    else:
        context = ssl.create_default_context(cafile=ca_file)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context
