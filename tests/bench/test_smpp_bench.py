"""The SMPP bench counts what a message centre really took, and says why the other library has no figures."""

import asyncio
from pathlib import Path

import pytest

from bench import smpp
from tests.support import run


def test_our_way_is_measured() -> None:
    found = run(smpp.measure({"ours": smpp.OURS}, window=8, rounds=2, seconds=0.3))
    assert len(found["ours"]) == 2
    for one in found["ours"]:
        assert one.submits > 8
        assert 0.3 <= one.seconds < 30
        assert 0 < one.cpu_s <= one.seconds * 2
    rates = [one.submits / one.seconds for one in found["ours"]]
    assert min(rates) - 1 <= smpp.figures(found["ours"])["submits_per_s"] <= max(rates) + 1


def test_what_cannot_be_installed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smpp, "OTHER", "./no-such-folder-here")
    why = run(smpp.install(tmp_path / "venv"))
    assert isinstance(why, str)
    assert why


def test_a_client_that_fails_is_no_figure() -> None:
    async def whole() -> None:
        async with smpp.centre() as port:
            await smpp.play(smpp.Way([*smpp.OURS.command, "x"]), port, 1, 0.1)

    with pytest.raises(RuntimeError, match="a client failed"):
        asyncio.run(whole())
