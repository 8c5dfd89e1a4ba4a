"""What WeChat posts, opened: its signature, its encryption, its XML or JSON.

Source: design page `wire.md`, section 13; the same as `wechatpy` 1.8.18 does.
"""

import base64
import binascii
import hashlib
import hmac
import xml.etree.ElementTree as ET
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from channels.loose import json_of

_BLOCK: Final = 32  # PKCS#7 padding is to 32 bytes here, though AES needs 16
_RANDOM: Final = 16
_DEEPEST: Final = 8
_DECLARATIONS: Final = (b"<!DOCTYPE", b"<!ENTITY")

Document = dict[str, Any]


def signature(*parts: str) -> str:
    """SHA-1 over the sorted parts: token, timestamp, nonce and, of an encrypted body, what stands in `Encrypt`."""
    return hashlib.sha1("".join(sorted(parts)).encode("utf-8", "surrogatepass")).hexdigest()


def is_signed(given: str | None, *parts: str) -> bool:
    """Whether this is their signature, in constant time."""
    return hmac.compare_digest(signature(*parts).encode(), (given or "").encode("utf-8", "surrogatepass"))


def key_of(encoding_aes_key: str) -> bytes:
    """The AES key behind an EncodingAESKey of 43 characters. Raises ValueError."""
    try:
        key = base64.b64decode(encoding_aes_key + "=", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise ValueError("must be the 43 characters of an EncodingAESKey")
    return key


def decrypt(key: bytes, encrypted: str, app_id: str) -> bytes:
    """The body in what stands in `Encrypt`: AES-256-CBC over 16 random bytes, a length, the body and the account's id.

    Raises ValueError, also when it is for another account.
    """
    data = base64.b64decode(encrypted, validate=True)
    if not data or len(data) % 16:
        raise ValueError("not whole blocks")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
    padded = decryptor.update(data) + decryptor.finalize()
    pad = padded[-1]
    if not 1 <= pad <= _BLOCK or len(padded) < pad + _RANDOM + 4:
        raise ValueError("not padded")
    plain = padded[_RANDOM:-pad]
    length = int.from_bytes(plain[:4], "big")
    if plain[4 + length :] != app_id.encode():
        raise ValueError("not of this account")
    return plain[4 : 4 + length]


def document_of(body: bytes) -> Document | None:
    """The fields of the XML or JSON object; a name that is repeated has a list. None when it is neither.

    Document types, and with them entities, are refused: nobody but an attacker sends them.
    """
    if body.lstrip()[:1] == b"{":
        found = json_of(body)
        return found if isinstance(found, dict) else None
    if any(declaration in body for declaration in _DECLARATIONS):
        return None
    try:
        root = ET.fromstring(body, parser=ET.XMLParser(encoding="utf-8"))  # so that the words above cannot hide
    except (ET.ParseError, ValueError):
        return None
    found = _value(root, 0)
    return found if isinstance(found, dict) else None


def _value(element: ET.Element, depth: int) -> Any:
    if len(element) == 0 or depth == _DEEPEST:
        return element.text or ""
    fields: Document = {}
    for child in element:
        value = _value(child, depth + 1)
        known = fields.get(child.tag)
        if known is None:
            fields[child.tag] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            fields[child.tag] = [known, value]
    return fields
