"""What a text message is billed when it is sent; its delivery report may correct that."""

from typing import Any, Final

from dispatcher.documents import Provider
from dispatcher.message import Message
from dispatcher.receipt import Receipt
from dispatcher.segments import billed

_REFERENCES: Final = ("env:", "file:")  # what is behind one is not known here
_DIGITS: Final = 8  # of a price; more would be noise of binary fractions


def bill(message: Message, receipt: Receipt, provider: Provider | None) -> tuple[int | None, float | None]:
    """`(segments, price)` of a message that was accepted: as the provider counted them, else as it is expected to.

    Both are None on channels other than sms, and the price where the provider's document has none for the region.
    """
    if message.channel != "sms":
        return None, None
    fields, region = message.fields, message.region
    if provider is None:
        return receipt.segments or billed(fields["text"], fields.get("signature"), region), None
    signature = fields.get("signature") or _signature(provider.options)
    segments = receipt.segments or billed(fields["text"], signature, region)
    unit = provider.price.get(region or "")
    return segments, None if unit is None else round(segments * unit, _DIGITS)


def _signature(options: dict[str, Any]) -> str | None:
    """The one that a provider's options put before texts that bring none."""
    signature = options.get("signature")
    return signature if isinstance(signature, str) and not signature.startswith(_REFERENCES) else None
