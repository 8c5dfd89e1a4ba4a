"""What a command_status means. Source: SMPP 3.4, 5.1.3; 5.0, 4.7.6; answers: design page `wire.md`, section 6."""

from typing import Final

from channels.answers import Verdict
from dispatcher.receipt import Answer

#: A centre that is throttling is left alone for so long.
PAUSE_S: Final = 1.0

NAMES: Final[dict[int, str]] = {
    0x00: "ROK",
    0x01: "RINVMSGLEN",
    0x02: "RINVCMDLEN",
    0x03: "RINVCMDID",
    0x04: "RINVBNDSTS",
    0x05: "RALYBND",
    0x06: "RINVPRTFLG",
    0x07: "RINVREGDLVFLG",
    0x08: "RSYSERR",
    0x0A: "RINVSRCADR",
    0x0B: "RINVDSTADR",
    0x0D: "RBINDFAIL",
    0x0E: "RINVPASWD",
    0x0F: "RINVSYSID",
    0x14: "RMSGQFUL",
    0x43: "RINVESMCLASS",
    0x45: "RSUBMITFAIL",
    0x48: "RINVSRCTON",
    0x49: "RINVSRCNPI",
    0x50: "RINVDSTTON",
    0x51: "RINVDSTNPI",
    0x53: "RINVSYSTYP",
    0x58: "RTHROTTLED",
    0x61: "RINVSCHED",
    0x62: "RINVEXPIRY",
    0x64: "RX_T_APPN",
    0x65: "RX_P_APPN",
    0x66: "RX_R_APPN",
    0xC0: "RINVOPTPARSTREAM",
    0xC1: "ROPTPARNOTALLWD",
    0xC2: "RINVPARLEN",
    0xC3: "RMISSINGOPTPARAM",
    0xC4: "RINVOPTPARAMVAL",
    0xFE: "RDELIVERYFAILURE",
    0xFF: "RUNKNOWNERR",
    0x100: "RSERTYPUNAUTH",
    0x101: "RPROHIBITED",
    0x102: "RSERTYPUNAVAIL",
    0x104: "RINVDCS",
}
ANSWERS: Final[dict[Answer, str]] = {
    "accepted": "ROK",
    "throttled": "RTHROTTLED RMSGQFUL",
    "invalid_recipient": "RINVDSTADR RINVDSTTON RINVDSTNPI",
    "auth": "RBINDFAIL RINVPASWD RINVSYSID RSERTYPUNAUTH",
    # RINVBNDSTS and RALYBND are about a session that the other side still holds or has lost; another bind mends that.
    "transient": "RINVBNDSTS RALYBND RSYSERR RX_T_APPN RDELIVERYFAILURE RUNKNOWNERR RSERTYPUNAVAIL",
    "rejected": "RINVMSGLEN RINVCMDLEN RINVCMDID RINVPRTFLG RINVREGDLVFLG RINVSRCADR RINVESMCLASS RSUBMITFAIL "
    "RINVSRCTON RINVSRCNPI RINVSYSTYP RINVSCHED RINVEXPIRY RX_P_APPN RX_R_APPN RINVOPTPARSTREAM ROPTPARNOTALLWD "
    "RINVPARLEN RMISSINGOPTPARAM RINVOPTPARAMVAL RPROHIBITED RINVDCS",
}
CODES: Final = {name: code for code, name in NAMES.items()}
_BY_CODE: Final = {CODES[name]: answer for answer, names in ANSWERS.items() for name in names.split()}


def name(status: int) -> str:
    """The specification's word for it, or the number of one that only the centre knows."""
    return NAMES.get(status) or f"status 0x{status:x}"


def verdict(status: int) -> Verdict:
    """What it means for the message; one that only the centre knows is `rejected`."""
    answer = _BY_CODE.get(status, "rejected")
    return Verdict(answer, name(status) if status else None, PAUSE_S if answer == "throttled" else None)
