"""Who may call a provider's callback addresses: whoever knows its secret, from an address that is allowed."""

from hashlib import sha256
from hmac import compare_digest
from ipaddress import IPv6Address, ip_address, ip_network

from channels.options import Options


def admits(options: Options, secret: str, address: str | None) -> bool:
    """Whether a caller from this address, who gives this secret, is the vendor. The time taken tells nothing of the
    secret: digests are compared."""
    wanted = options.callback_secret
    if not wanted:
        return False
    given, known = sha256(secret.encode("utf-8", "surrogateescape")), sha256(wanted.encode())
    return compare_digest(given.digest(), known.digest()) and is_allowed(options.callback_allow, address)


def is_allowed(networks: list[str], address: str | None) -> bool:
    """Whether the address is in one of these networks; without any, every one is."""
    if not networks:
        return True
    try:
        caller = ip_address(address or "")
    except ValueError:
        return False
    if isinstance(caller, IPv6Address) and caller.ipv4_mapped is not None:
        caller = caller.ipv4_mapped
    return any(caller in ip_network(network, strict=False) for network in networks)
