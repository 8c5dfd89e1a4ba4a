"""The provider kind `apns`: Apple's push service, over HTTP/2.

Source: design page `wire.md`, section 8.
"""

from typing import Final
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from channels.apns.courier import ApnsCourier
from channels.apns.session import Place
from channels.apns.signer import Signer
from channels.kind import Kind
from channels.options import Options, OptionsError
from channels.secret import Secret
from channels.tls import tls_context

__all__ = ["KIND", "ApnsOptions"]

_URL: Final = "https://api.push.apple.com"
_SANDBOX_URL: Final = "https://api.sandbox.push.apple.com"


class ApnsOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`key`: the text of the p8 file that Apple gave for `key_id`; `topic`: the app's bundle id."""

    key: Secret
    key_id: str
    team_id: str
    topic: str
    sandbox: bool = False


def _open(provider: str, options: Options, concurrency: int) -> ApnsCourier:
    """`concurrency` needs no bound here: requests wait for a stream, and connections are few."""
    assert isinstance(options, ApnsOptions)
    try:
        key = load_pem_private_key(options.key.reveal().encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # their texts may show what it holds
        key = None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise OptionsError([("options.key", "must hold the text of a p8 file: a P-256 key in PEM")])
    errors = [
        (f"options.{name}", "must be printable ASCII without spaces")
        for name, value in (("key_id", options.key_id), ("team_id", options.team_id), ("topic", options.topic))
        if not value or not all("!" <= c <= "~" for c in value)
    ]
    if errors:
        raise OptionsError(errors)
    return ApnsCourier(provider, options.topic, _place(options), Signer(key, options.key_id, options.team_id))


def _place(options: ApnsOptions) -> Place:
    parts = urlsplit(options.url or (_SANDBOX_URL if options.sandbox else _URL))
    host = parts.hostname or ""
    if parts.scheme == "http":  # to a proxy of the house: HTTP/2 without asking first (RFC 9113, 3.3)
        return Place(host, parts.port or 80, parts.netloc)
    try:
        tls = tls_context(options.ca_file, ("h2",))
    except OSError as error:  # ssl's own errors are OSErrors too
        raise OptionsError([("options.ca_file", f"cannot be used: {error.strerror or error}")]) from None
    return Place(host, parts.port or 443, parts.netloc, tls)


KIND: Final = Kind(options=ApnsOptions, channels=("push",), open=_open, most=100)
