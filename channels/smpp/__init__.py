"""The provider kind `smpp`: a message centre, or an aggregator that speaks like one."""

from typing import Annotated, Final, Literal

from msgspec import Meta

from channels.kind import Kind
from channels.options import Options, OptionsError
from channels.secret import Secret
from channels.smpp.courier import Account, SmppCourier
from channels.smpp.pdu import Bind, PduError, c_string
from channels.smpp.submit import address
from channels.tls import tls_context

__all__ = ["KIND", "SmppOptions"]

_VERSIONS: Final = {"3.4": 0x34, "5.0": 0x50}
_MOST_NAME: Final = 11  # characters of a sender that is a name (3GPP TS 23.040, 9.1.2.5)


class SmppOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`window`: submit_sm without an answer, as the contract says; of each sender, whose session it is."""

    host: str
    port: Annotated[int, Meta(ge=1, le=65535)] = 2775
    system_id: str
    password: Secret
    system_type: str = ""
    source_addr: str = ""
    window: Annotated[int, Meta(ge=1, le=1000)] = 10
    tls: bool = False
    version: Literal["3.4", "5.0"] = "3.4"


def _open(provider: str, options: Options, concurrency: int) -> SmppCourier:
    """`concurrency` needs no bound here: requests wait for a place in the window."""
    assert isinstance(options, SmppOptions)
    errors = _faults(options)
    if errors:
        raise OptionsError(errors)
    tls = None
    if options.tls:
        try:
            tls = tls_context(options.ca_file, ())
        except OSError as error:  # ssl's own errors are OSErrors too
            raise OptionsError([("options.ca_file", f"cannot be used: {error.strerror or error}")]) from None
    bind = Bind(options.system_id, options.password.reveal(), options.system_type, _VERSIONS[options.version])
    return SmppCourier(
        provider, Account(options.host, options.port, bind, options.source_addr, options.window, tls)
    )


def _faults(options: SmppOptions) -> list[tuple[str, str]]:
    errors: list[tuple[str, str]] = []
    if options.url is not None:
        errors.append(("options.url", "a message centre has `host` and `port`"))
    if options.ca_file is not None and not options.tls:
        errors.append(("options.ca_file", "needs `tls`"))
    names = (("system_id", options.system_id, 15), ("password", options.password.reveal(), 8))
    for option, value, most in (*names, ("system_type", options.system_type, 12)):
        try:
            fits = len(c_string(value)) <= most + 1
        except PduError:
            fits = False
        if not fits:
            errors.append((f"options.{option}", f"must have at most {most} characters of Latin-1"))
    ton, _, source = address(options.source_addr)
    most = _MOST_NAME if ton == 5 else 20
    if not source.isascii() or "\0" in source or len(source) > most:
        errors.append(("options.source_addr", f"must be a number, or a name of at most {_MOST_NAME} characters"))
    return errors


KIND: Final = Kind(options=SmppOptions, channels=("sms",), open=_open, most=100)
