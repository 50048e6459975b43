"""The command line's own documentation, and that it stays quick to start."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.unit.cli.fake import Tram
from tramontane.cli.main import COMMANDS, tram
from tramontane.cli.reference import make_reference

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def test_page_is_in_step() -> None:
    assert PAGE.read_text() == make_reference(), (
        "run: python -m tramontane.cli.reference > docs/cli.md"
    )


def each_command(parent: click.Context) -> list[click.Context]:
    group = parent.command
    assert isinstance(group, click.Group)
    found: list[click.Context] = []
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent)
        found.append(context)
        if isinstance(command, click.Group):
            found.extend(each_command(context))
    return found


@pytest.mark.parametrize(
    "context",
    each_command(click.Context(tram, info_name="tram")),
    ids=lambda context: context.command_path,
)
def test_every_verb_and_option_is_explained(context: click.Context) -> None:
    assert context.command.help
    for param in context.command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{context.command_path} {param.name} has no help"


def test_reading_verbs_offer_every_form() -> None:
    for context in each_command(click.Context(tram, info_name="tram")):
        name = context.command_path.rsplit(" ", 1)[1]
        if name in {"list", "get", "status", "doctor", "why", "plan", "logs"}:
            (output,) = [each for each in context.command.params if each.name == "output"]
            assert isinstance(output.type, click.Choice)
            assert list(output.type.choices) == ["table", "json", "yaml"]


def test_table_of_verbs_says_what_the_verbs_say() -> None:
    context = click.Context(tram, info_name="tram")
    for name in COMMANDS:
        command = tram.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_help_and_version(tram: Tram) -> None:
    assert "deploy" in tram("--help").out
    assert tram("--version").out.startswith("tram 0.")
    assert "complete" in tram("completion", "bash").out


def test_lists_import_nothing_slow() -> None:
    program = (
        "import sys; import tramontane.cli.main, tramontane.cli.services; "
        "print([name for name in ('pydantic', 'httpx', 'yaml', 'rich', 'asyncio') "
        "if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
