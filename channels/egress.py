"""Where requests may go: public addresses, unless a provider says `allow_private`.

The name is resolved once, every address is checked, literal addresses included, and the socket is opened to a checked
address (`channels.address`). So a name cannot change its meaning between
check and use (DNS rebinding). Source of the ranges: IANA special-purpose address registries (as `ipaddress` knows
them); 168.63.129.16 is Azure's host channel, the one metadata address outside them.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_EXTRA_V4: Final = (
    IPv4Network("168.63.129.16/32"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = IPv6Network("::/96")
_EXTRA_V6: Final = (IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"), IPv6Network("100::/64"))


class AddressRefused(OSError):
    """The address is loopback, private, link-local, metadata, or not an address at all."""


def is_public(address: str) -> bool:
    """Whether an address is one on the internet; False for everything that is not a plain IP address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    return _is_public_v4(ip) if isinstance(ip, IPv4Address) else _is_public_v6(ip)


def _is_public_v4(ip: IPv4Address) -> bool:
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _EXTRA_V4)


def _is_public_v6(ip: IPv6Address) -> bool:
    inner = _embedded(ip)
    if any(not _is_public_v4(v4) for v4 in inner):
        return False
    if inner and (ip.ipv4_mapped is not None or ip in _NAT64):
        return True
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _EXTRA_V6)


def _embedded(ip: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that a translator or tunnel would reach through this one."""
    if ip.ipv4_mapped is not None:
        return [ip.ipv4_mapped]
    if ip.sixtofour is not None:
        return [ip.sixtofour]
    if ip.teredo is not None:
        return list(ip.teredo)
    if ip in _NAT64 or ip in _COMPATIBLE:
        return [IPv4Address(int(ip) & 0xFFFF_FFFF)]
    return []


def is_private_host(host: str) -> bool:
    """Whether a URL's host is private as written: a literal address, or a name that means this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    if ":" in name or name.replace(".", "").isdigit():
        return not is_public(name)
    return False
