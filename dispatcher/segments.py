"""How many SMS segments a text needs.

Source: GSM 03.38 (3GPP TS 23.038) alphabet; 140-byte payload, of which a concatenated part gives 6 to its header
(3GPP TS 23.040): 160/153 septets or 70/67 UTF-16 units.
"""

from typing import Final

_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED: Final = frozenset("\f^{}\\[~]|€")  # two septets each


def segments(text: str) -> int:
    """Segments of a text; at least 1. A pair that would straddle a part's end is counted as if it could."""
    chars = set(text)
    if chars <= _BASIC | _EXTENDED:
        septets = len(text) + sum(text.count(c) for c in chars & _EXTENDED)
        return 1 if septets <= 160 else -(-septets // 153)
    units = len(text.encode("utf-16-le")) // 2
    return 1 if units <= 70 else -(-units // 67)
