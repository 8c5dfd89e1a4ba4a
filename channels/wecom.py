"""The provider kinds `wecom`, messages of a WeCom application to members, and `wecom_robot`, a chat group's robot.

Wire facts, codes and their classes: design page `wire.md`, section 13.
"""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from channels.adapter import Reply, Request, Unsendable
from channels.answers import LONGEST_WORD, by_code
from channels.errcode import JSON, Account, document_of, verdict_of
from channels.kind import Kind
from channels.loose import word
from channels.options import Options, SecretUrl
from channels.robot import body_of, text_of
from channels.secret import Secret
from dispatcher.message import Message
from dispatcher.receipt import Receipt

ENDPOINT: Final = "https://qyapi.weixin.qq.com"
MOST: Final = 1000  # members of a request
_STALE: Final = frozenset({"40001", "40014", "42001"})
_ANSWERS: Final = by_code(
    {
        "invalid_recipient": "40003 60111 81013 82001",
        "auth": "40001 40014 40056 42001 48002 60011 60020 301002",
        "throttled": "-1 45009 45033",
        "rejected": "45002 85002",
    }
)
_ROBOT_ANSWERS: Final = by_code({"auth": "93000", "throttled": "-1 45009 45033"})
#: A text that was sent to a member is not sent again within this time: what an attempt of unknown end may leave.
_REPEATED_S: Final = 1800
_encode: Final = msgspec.json.Encoder().encode


class WecomOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One application (`agent_id`) of an organisation; `corp_secret` is that application's."""

    corp_id: str
    corp_secret: Secret
    agent_id: int


class WecomRobotOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`url` is the robot's, with its key."""

    url: SecretUrl


def plain(fields: dict[str, Any]) -> str:
    """The template's data as text: its `content` where it has one, else each value on a line of its own; then the
    address."""
    data = fields["data"]
    shown = [data["content"]] if "content" in data else list(data.values())
    lines = [str(value.get("value", "")) if isinstance(value, dict) else str(value) for value in shown]
    return "\n".join([line for line in (*lines, fields.get("url") or "") if line])


class Wecom(Account):
    """One application. A request carries one text to any number of members."""

    def __init__(self, provider: str, options: WecomOptions) -> None:
        self._provider = provider
        self._options = options
        self._url = (options.url or ENDPOINT).rstrip("/")
        super().__init__(f"{self._url}/cgi-bin/message/send", _ANSWERS, _STALE)

    def __repr__(self) -> str:
        return f"Wecom({self._provider!r})"

    # -- access token (`channels.adapter.Tokened`)

    def token_request(self, now_s: float) -> Request:
        corp_id, secret = quote(self._options.corp_id, safe=""), quote(self._options.corp_secret.reveal(), safe="")
        url = f"{self._url}/cgi-bin/gettoken?corpid={corp_id}&corpsecret={secret}"
        return Request("GET", url, {"user-agent": "dispatcher"}, b"")

    # -- messages

    def parts(self, messages: Sequence[Message]) -> list[list[int]]:
        """Those of equal text; no member twice, whose id is the same in any case. What is no member's id goes alone."""
        parts: list[list[int]] = []
        open_: dict[str, tuple[list[int], set[str]]] = {}
        for place, message in enumerate(messages):
            if not _is_member(message.to):
                parts.append([place])
                continue
            text, member = plain(message.fields), message.to.casefold()
            part = open_.get(text)
            if part is None or len(part[0]) == MOST or member in part[1]:
                part = open_[text] = ([], set())
                parts.append(part[0])
            part[0].append(place)
            part[1].add(member)
        return parts

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        if not all(_is_member(message.to) for message in messages):
            raise Unsendable("invalid_recipient", "no member's id")
        body = {
            "touser": "|".join([message.to for message in messages]),
            "msgtype": "text",
            "agentid": self._options.agent_id,
            "text": {"content": plain(messages[0].fields)},
            "safe": 0,
            "enable_duplicate_check": 1,
            "duplicate_check_interval": _REPEATED_S,
        }
        return Request("POST", self._send_url, JSON, _encode(body))

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        found = document_of(reply)
        verdict = verdict_of(reply, found, _ANSWERS, now_s)
        if verdict.answer != "accepted":
            return verdict.receipts(messages, self._provider)
        ref = word(found.get("msgid"), LONGEST_WORD)
        unknown, unlicensed = _members(found.get("invaliduser")), _members(found.get("unlicenseduser"))
        return [self._receipt(message, ref, unknown, unlicensed) for message in messages]

    def _receipt(self, message: Message, ref: str | None, unknown: set[str], unlicensed: set[str]) -> Receipt:
        member = message.to.casefold()
        if member in unknown:
            return Receipt(message.id, "invalid_recipient", self._provider, ref, "invaliduser")
        if member in unlicensed:
            return Receipt(message.id, "rejected", self._provider, ref, "unlicenseduser")
        return Receipt(message.id, "accepted", self._provider, ref)


def _is_member(address: str) -> bool:
    """Whether it names one member: `|` stands between several, `@all` is everybody."""
    return "|" not in address and not address.startswith("@")


def _members(named: Any) -> set[str]:
    return set(named.casefold().split("|")) if isinstance(named, str) else set()


class WecomRobot:
    """One robot. A request carries one message."""

    def __init__(self, provider: str, options: WecomRobotOptions) -> None:
        self._provider = provider
        self._url = options.url

    def __repr__(self) -> str:
        return f"WecomRobot({self._provider!r})"

    def request(self, messages: Sequence[Message], now_s: float) -> Request:
        body = body_of(messages[0], "msgtype") or {"msgtype": "text", "text": {"content": text_of(messages[0])}}
        return Request("POST", self._url, JSON, _encode(body))

    def receipts(self, messages: Sequence[Message], reply: Reply, now_s: float) -> list[Receipt]:
        verdict = verdict_of(reply, document_of(reply), _ROBOT_ANSWERS, now_s)
        return verdict.receipts(messages, self._provider)


def _build(provider: str, options: Options) -> Wecom:
    assert isinstance(options, WecomOptions)
    return Wecom(provider, options)


def _build_robot(provider: str, options: Options) -> WecomRobot:
    assert isinstance(options, WecomRobotOptions)
    return WecomRobot(provider, options)


KIND: Final = Kind(options=WecomOptions, channels=("wechat",), build=_build, most=MOST)
ROBOT: Final = Kind(options=WecomRobotOptions, channels=("webhook",), build=_build_robot)
