"""Addresses: one spelling for each, so that equal people are equal, and the region of a phone number."""

import re
from functools import lru_cache
from typing import Final

import phonenumbers

_CN_MOBILE: Final = re.compile(r"\+861[3-9][0-9]{9}")  # \d would let other scripts' digits through, unnormalised
_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,255}")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_URL: Final = re.compile(r"https?://[^\s\x00-\x1f]{1,2040}")


def normalise(channel: str, text: str, region: str = "CN") -> str | None:
    """The address in its one spelling, or None when it cannot be one: sms E.164, e-mail's domain in lower case."""
    if channel == "sms":
        # Mainland mobiles are the bulk of the traffic and cost 40 us through the full metadata.
        return text if _CN_MOBILE.fullmatch(text) else _e164(text, region)
    text = text.strip()
    if channel == "email":
        if not _EMAIL.fullmatch(text):
            return None
        local, _, domain = text.rpartition("@")
        return f"{local}@{domain.lower()}"
    return text if (_URL if channel == "webhook" else _TOKEN).fullmatch(text) else None


def region_of(channel: str, address: str) -> str | None:
    """The ISO 3166 region of a normalised phone number; None for other channels and for numbers of no region."""
    if channel != "sms":
        return None
    return "CN" if _CN_MOBILE.fullmatch(address) else _region(address)


@lru_cache(maxsize=65_536)
def _e164(text: str, region: str) -> str | None:
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


@lru_cache(maxsize=65_536)
def _region(address: str) -> str | None:
    code = phonenumbers.region_code_for_number(phonenumbers.parse(address))
    return code if isinstance(code, str) else None
