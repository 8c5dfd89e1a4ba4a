"""The provider token: a JSON Web Token under ES256 that Apple takes for an hour.

Source: design page `wire.md`, section 8; RFC 7515; RFC 7518, 3.4; RFC 6979.
"""

import base64
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

#: A token is used for so long; Apple refuses one that is older than an hour, or changed more often than in 20 minutes.
LIFE_S: Final = 2_400
#: A token is taken into use so long after the time it names: Apple's clock may be behind ours.
LAG_S: Final = 300
#: After Apple called a token expired another is made, but not again for so long.
RENEWAL_S: Final = 1_200

_encode: Final = msgspec.json.encode
_ALGORITHM: Final = ECDSA(SHA256(), deterministic_signing=True)


class Signer:
    """Tokens that are the same in all senders, though none tells another: the time they name is that of a 40-minute
    window, and the signature has no chance in it. They are 5 to 45 minutes old."""

    def __init__(self, key: EllipticCurvePrivateKey, key_id: str, team_id: str) -> None:
        self._key = key
        self._key_id = key_id
        self._team_id = team_id
        self._window = -1
        self._token = b""
        self._renewed_s = float("-inf")

    def token(self, now_s: float) -> bytes:
        """The header `authorization`."""
        window = int(now_s - LAG_S) // LIFE_S
        if window != self._window:
            self._window = window
            self._token = self._sign(window * LIFE_S)
        return self._token

    def renew(self, expired: bytes, now_s: float) -> bool:
        """Whether there is another token than this one that Apple calls expired. That our clock is behind is the one
        reason for a new one in the midst of a window."""
        if expired != self._token:
            return True
        if 0 <= now_s - self._renewed_s < RENEWAL_S:
            return False
        self._renewed_s = now_s
        self._token = self._sign(int(now_s))
        return self._token != expired

    def _sign(self, issued_s: int) -> bytes:
        head = {"alg": "ES256", "kid": self._key_id}
        signed = b".".join([_base64(_encode(head)), _base64(_encode({"iss": self._team_id, "iat": issued_s}))])
        r, s = decode_dss_signature(self._key.sign(signed, _ALGORITHM))
        return b"bearer " + b".".join([signed, _base64(r.to_bytes(32) + s.to_bytes(32))])


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
