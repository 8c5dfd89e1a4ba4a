"""Replies that are a code and a message, as Tencent's and Alibaba's office platforms and Feishu give them."""

from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import quote

from channels.adapter import NoToken, Reply, Token
from channels.answers import LONGEST_WORD, Verdict, receipt_of_status
from channels.loose import json_of, word
from channels.oauth import is_token, lasting_s, no_token
from dispatcher.receipt import Answer

JSON: Final = {"content-type": "application/json; charset=utf-8", "user-agent": "dispatcher"}
_UNREADABLE: Final = Verdict("unknown", "unreadable reply")


def document_of(reply: Reply) -> dict[str, Any]:
    """The reply's JSON object; empty when it is none."""
    found = json_of(reply.body)
    return found if isinstance(found, dict) else {}


def verdict_of(
    reply: Reply, found: dict[str, Any], answers: Mapping[str, Answer], now_s: float, name: str = "errcode"
) -> Verdict:
    """What the code named `name` means; 0 is `accepted`, and nothing is with a status other than 2xx."""
    code = word(found.get(name), LONGEST_WORD)
    if not 200 <= reply.status < 300:
        default = receipt_of_status(reply.status, reply.headers, reply.body, now_s)
        answer = answers.get(code or "")
        return default if answer is None else Verdict(answer, code, default.retry_after_s)
    if code is None:  # a 2xx that cannot be read may have been a yes
        return _UNREADABLE
    return Verdict("accepted") if code == "0" else Verdict(answers.get(code, "rejected"), code)


def token_of(reply: Reply, answers: Mapping[str, Answer], now_s: float) -> Token:
    """The access token in `access_token` and `expires_in`. Raises NoToken."""
    found = document_of(reply)
    value = found.get("access_token")
    if reply.status == 200 and isinstance(value, str) and is_token(value):
        return Token(value, now_s + lasting_s(found.get("expires_in")))
    code = word(found.get("errcode"))
    if reply.status != 200 or code is None:
        raise no_token(reply, code or "", now_s)
    answer = answers.get(code, "auth")
    raise NoToken(answer if answer in ("throttled", "transient") else "auth", f"no token: {code}")


class Account:
    """What the adapters of WeChat and WeCom share (`channels.adapter.Tokened`): the access token stands in the address
    that messages go to, and a reply's code says that it is not good any more."""

    def __init__(self, address: str, answers: Mapping[str, Answer], stale: Collection[str]) -> None:
        self._address = address
        self._answers = answers
        self._stale = stale
        self.use("")

    def token_of(self, reply: Reply, now_s: float) -> Token:
        return token_of(reply, self._answers, now_s)

    def use(self, token: str) -> None:
        self._send_url = f"{self._address}?access_token={quote(token, safe='')}"

    def is_stale(self, reply: Reply) -> bool:
        return word(document_of(reply).get("errcode")) in self._stale
