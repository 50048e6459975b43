"""Writes docs/cli.md from the commands themselves: ``python -m tramontane.cli.reference``.

A test compares the file with this, so the documentation cannot drift from the command line.
"""

from collections.abc import Iterator

import click

from tramontane.cli.main import COMMANDS, tram

HEAD = """# The command `tram`

Made by `python -m tramontane.cli.reference > docs/cli.md`; do not edit by hand.

Results go to standard output, everything else to standard error. An error has three parts: what
failed, which object, and the next step. Every reading verb takes `-o table|json|yaml`; `json` is
the API's own document.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | the command line or the manifest is wrong |
| 3 | refused by policy |
| 4 | not found |
| 5 | timed out; the work goes on |
| 6 | the platform cannot be reached |
| 130 | interrupted |

| variable | meaning |
|---|---|
| `TRAM_HOME` | The platform's state. Default: `tramontane` in the XDG data directory. |
| `TRAM_API` | The address of the API, for a platform on another machine. |
| `TRAM_TOKEN` | The token for it. Default: the `credentials` file in `TRAM_HOME`. |
| `NO_COLOR` | No colours, whatever its value. |
| `OTEL_EXPORTER_OTLP_ENDPOINT`, … | At `tram up`: where spans of requests go ([Usage](usage.md)). |
| `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` | At `tram up`: the model hub behind `hf://`. |
| `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, … | At `tram up`: the store of `s3://`. |

What `sources.yaml` in `TRAM_HOME` says wins over the last two rows ([Models](models.md)).

Durations are `30s`, `5m`, `1h30m` or a number of seconds.
"""


def make_reference() -> str:
    """Return the whole page."""
    context = click.Context(tram, info_name="tram")
    parts = [HEAD, "## Verbs\n", "\n".join(_contents()), *_commands(context)]
    return "\n".join(parts)


def _contents() -> Iterator[str]:
    yield "| verb | what it does |"
    yield "|---|---|"
    for name, entry in COMMANDS.items():
        yield f"| [`{name}`](#tram-{name}) | {entry.help} |"
    yield ""


def _commands(parent: click.Context) -> Iterator[str]:
    group = parent.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent)
        yield _section(context)
        if isinstance(command, click.Group):
            yield from _commands(context)


def _section(context: click.Context) -> str:
    command = context.command
    depth = context.command_path.count(" ") + 1
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = ["#" * (depth + 1) + f" {context.command_path}", "", f"`{usage}`", ""]
    lines += [" ".join(part.split()) + "\n" for part in (command.help or "").split("\n\n")]
    options = [
        each
        for each in command.get_params(context)
        if isinstance(each, click.Option) and "--help" not in each.opts
    ]
    records = [record for each in options if (record := each.get_help_record(context))]
    if records:
        lines += ["| option | meaning |", "|---|---|"]
        lines += [
            f"| `{names.replace('|', chr(92) + '|')}` | {text.strip()} |" for names, text in records
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    click.echo(make_reference(), nl=False)
