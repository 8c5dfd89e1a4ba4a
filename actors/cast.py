"""Who is who: the names of actors, one place for all of them."""

from collections.abc import Mapping

from dispatcher.documents import Provider


def shard_name(number: int) -> str:
    """The actor that owns the partitions `number`, `number + shards`, ..."""
    return f"shard:{number}"


def router_name(number: int) -> str:
    """One of the interchangeable routers."""
    return f"router:{number}"


def gateway_name(number: int) -> str:
    """One of the gateways that share the HTTP port."""
    return f"gateway:{number}"


def sender_name(provider: str, number: int) -> str:
    """One member of a provider's pool."""
    return f"sender:{provider}:{number}"


def senders_of(providers: Mapping[str, Provider]) -> dict[str, tuple[str, int]]:
    """Every sender there should be: name -> (provider, number)."""
    return {
        sender_name(id_, number): (id_, number)
        for id_, provider in providers.items()
        if provider.enabled
        for number in range(provider.senders)
    }
