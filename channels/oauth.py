"""Access tokens as OAuth 2.0 gives them (RFC 6749, sections 5.1 and 5.2)."""

from typing import Final

from channels.adapter import NoToken, Reply, Token
from channels.answers import receipt_of_status
from channels.push import document, text_of

FORM: Final = {"content-type": "application/x-www-form-urlencoded", "user-agent": "dispatcher"}
_LIFE_S: Final = 3600.0  # where the vendor does not say
_LONGEST_LIFE_S: Final = 30 * 86_400.0


def token_of(reply: Reply, now_s: float) -> Token:
    """The token in a reply. Raises NoToken."""
    found = document(reply.body)
    value, life_s = found.get("access_token"), found.get("expires_in")
    if reply.status == 200 and isinstance(value, str) and is_token(value):
        return Token(value, now_s + (lasting_s(life_s)))
    raise no_token(reply, text_of(found.get("error")), now_s)


def lasting_s(value: object) -> float:
    """Seconds that a token lasts, as the vendor says."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) else _LIFE_S
    except (ValueError, OverflowError):
        return _LIFE_S
    return min(seconds, _LONGEST_LIFE_S) if seconds > 0 else _LIFE_S


def is_token(value: str) -> bool:
    """Whether it can stand in a header."""
    return value.isascii() and value.isprintable() and " " not in value and value != ""


def no_token(reply: Reply, why: str, now_s: float) -> NoToken:
    """Why there is none: a vendor that is busy, or one that does not know us. A 2xx in unknown words is `transient`,
    since no message was sent."""
    answer = receipt_of_status(reply.status, reply.headers, reply.body, now_s).answer
    if answer == "rejected":
        answer = "auth" if reply.status >= 400 else "transient"
    elif answer == "unknown":
        answer = "transient"
    return NoToken(answer, f"no token: {why or f'http {reply.status}'}")
