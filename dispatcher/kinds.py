"""The closed vocabularies: channels, message types, lanes, and the defaults that follow from a type.

Source of the defaults: design page `rules.md`, "Defaults by type".
"""

from typing import Final

from msgspec import Struct

CHANNELS: Final = ("sms", "push", "wechat", "email", "webhook")
LANES: Final = ("urgent", "normal", "bulk")
URGENT, NORMAL, BULK = range(3)


class TypeDefaults(Struct, frozen=True):
    """What a message of one type gets when its trigger and template say nothing else."""

    lane: int
    ttl_s: float
    level: int


TYPES: Final[dict[str, TypeDefaults]] = {
    "verification": TypeDefaults(URGENT, 300, 1),
    "notice": TypeDefaults(NORMAL, 86_400, 3),
    "repayment": TypeDefaults(NORMAL, 86_400, 2),
    "notice_marketing": TypeDefaults(BULK, 86_400, 4),
    "marketing": TypeDefaults(BULK, 86_400, 5),
}


def lane_of(type_: str, level: int, wanted: str | None = None) -> int:
    """The lane of a message; `wanted` (a trigger's `lane`) may only lower it."""
    lane = URGENT if type_ == "notice" and level == 1 else TYPES[type_].lane
    return lane if wanted is None else max(lane, LANES.index(wanted))
