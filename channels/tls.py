"""Whose certificates are believed."""

import ssl


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """The system's authorities, or those of a file or of a PEM text. Raises OSError."""
    if ca_file is not None and "-----BEGIN" in ca_file:
        context = ssl.create_default_context(cadata=ca_file)
    else:
        context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context
