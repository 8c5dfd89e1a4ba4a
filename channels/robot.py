"""Chat groups' robots, which post what they are given: DingTalk's, Feishu's and WeCom's.

The channel is `webhook`. A body that is already a message in the robot's own words goes out as it is; of any other its
`text` does, and all of it as JSON where there is none. The group is that of the provider's `url`, whatever the
message's own address.
"""

from typing import Any

import msgspec

from dispatcher.message import Message


def body_of(message: Message, kind_name: str) -> dict[str, Any] | None:
    """The body if it is a message in the robot's words, which name its kind under `kind_name`."""
    body: dict[str, Any] = message.fields["body"]
    return body if isinstance(body.get(kind_name), str) else None


def text_of(message: Message) -> str:
    """What a body in other words says."""
    body = message.fields["body"]
    text = body.get("text")
    return text if isinstance(text, str) and text else msgspec.json.encode(body).decode()
