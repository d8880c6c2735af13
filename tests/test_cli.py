"""The console script runs what `python -m` runs, and says what it does not know."""

import subprocess
import sys

import pytest

from runtime import cli
from runtime.errors import EXIT_ERROR, EXIT_USAGE


def test_every_command_is_a_module_of_the_checkout():
    assert cli._available() == list(cli.COMMANDS)


def test_help_lists_every_command(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name}" in out for name in cli.COMMANDS)


@pytest.mark.parametrize(("arguments", "status"), [([], EXIT_USAGE), (["enlarge"], EXIT_USAGE)])
def test_wrong_usage_has_status_2(arguments, status, capsys):
    assert cli.main(arguments) == status
    captured = capsys.readouterr()
    assert "infer" in captured.out + captured.err


def test_a_command_keeps_its_options_its_name_and_its_status(capsys):
    assert cli.main(["infer", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: aminet-edge infer ")
    assert cli.main(["infer", "no-such-face.png"]) == EXIT_ERROR
    assert cli.main(["infer", "--no-such-option"]) == EXIT_USAGE


def test_the_version_is_the_projects():
    run = [sys.executable, "-m", "runtime.cli", "--version"]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert said.startswith("aminet-edge ")
