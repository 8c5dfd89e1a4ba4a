"""Provider kinds. A new kind is one file and one row in `ADAPTERS`; the contract tests then cover it."""

from collections.abc import Mapping
from typing import Any, Final

from channels import webhook
from channels.adapter import Adapter
from channels.kind import Kind
from channels.lean import LeanTransport
from channels.options import Error, OptionsError, check_options, masked, read_options
from channels.transport import Transport
from dispatcher.documents import Provider

__all__ = ["ADAPTERS", "OptionsError", "build", "check", "mask"]

ADAPTERS: Final[dict[str, Kind]] = {"webhook": webhook.KIND}


def check(provider: Provider) -> list[Error]:
    """`(path, message)` for what the types cannot say: the kind, its channels, its options. Opens no reference."""
    kind = ADAPTERS.get(provider.kind)
    if kind is None:
        return [("kind", f"unknown kind `{provider.kind}`: one of {', '.join(sorted(ADAPTERS))}")]
    errors: list[Error] = []
    if provider.channel not in kind.channels:
        errors.append(("channel", f"`{provider.kind}` delivers {', '.join(kind.channels)}"))
    return errors + check_options(kind.options, provider.options)


def mask(options: Mapping[str, Any], kind: str = "webhook") -> dict[str, Any]:
    """Options as a reader of the catalog may see them: `env:` and `file:` as written, any other secret as `***`."""
    found = ADAPTERS.get(kind)
    return masked(found.options if found is not None else None, options)


def build(provider_id: str, provider: Provider, environ: Mapping[str, str]) -> tuple[Adapter, Transport]:
    """The adapter and the way to the provider, with every `env:` and `file:` opened. Raises OptionsError."""
    kind = ADAPTERS[provider.kind]
    options = read_options(kind.options, provider.options, environ)
    allow_private = bool(getattr(options, "allow_private", False))
    adapter = kind.build(provider_id, options)
    try:
        return adapter, LeanTransport(provider.concurrency, allow_private, options.ca_file)
    except OSError as error:  # ssl's own errors are OSErrors too
        raise OptionsError([("options.ca_file", f"cannot be used: {error.strerror or error}")]) from None
