"""The `dispatcher` command as a whole."""

from importlib.metadata import version

import pytest

from actors.cli.main import COMMANDS, main, parser


def test_its_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"dispatcher {version('dispatcher')}\n"


def test_every_command_is_listed() -> None:
    text = parser().format_help()
    assert [command for command in COMMANDS if f"\n    {command}" not in text] == []
    assert "--version" in text
