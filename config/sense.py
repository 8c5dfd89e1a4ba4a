"""What the types cannot say: zones and regions that exist, addresses that are safe, counts that fit together."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import phonenumbers

from channels.secret import is_reference
from config.schema import Config

_DOMAIN: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+(:\d{1,5})?")
Fault = tuple[str, str]


def check_sense(config: Config) -> Iterator[Fault]:
    """`(path, what)` for every setting that makes no sense."""
    yield from _places(config)
    yield from _http(config)
    yield from _stores(config)
    if config.shards > config.partitions:
        yield "shards", f"{config.shards} shards cannot share {config.partitions} partitions"
    if config.links.domain and not _DOMAIN.fullmatch(config.links.domain):
        yield "links.domain", f'expected a domain such as "s.example.com", got "{config.links.domain}"'


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _places(config: Config) -> Iterator[Fault]:
    try:
        ZoneInfo(config.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = _near(config.timezone, available_timezones())
        yield "timezone", f'there is no zone "{config.timezone}"{hint}'
    if config.region not in phonenumbers.SUPPORTED_REGIONS:
        hint = _near(config.region.upper(), phonenumbers.SUPPORTED_REGIONS)
        yield "region", f'"{config.region}" is no region of phone numbers (ISO 3166, such as "CN"){hint}'


def _near(name: str, known: set[str]) -> str:
    near = get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return f', did you mean "{near[0]}"?' if near else ""


def _http(config: Config) -> Iterator[Fault]:
    http = config.http
    if not http.host:
        yield "http.host", "expected an address to listen on"
    if not http.keys and not is_loopback(http.host):
        yield "http.keys", f'others can reach http.host "{http.host}": add an [[http.keys]] table or use "127.0.0.1"'
    for i, key in enumerate(http.keys):
        if not is_reference(key.key):
            yield f"http.keys[{i}].key", 'expected "env:NAME" or "file:NAME", never the secret itself'
    names = [key.name for key in http.keys]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield f"http.keys[{i}].name", f'another key is already called "{name}"'


def _stores(config: Config) -> Iterator[Fault]:
    url = config.redis.url
    if url and urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        yield "redis.url", "expected redis://, rediss:// or unix://"
    if config.ray.address.startswith("ray://"):
        yield "ray.address", 'expected "HOST:PORT" of the cluster or "auto"; Ray\'s client protocol is not supported'
