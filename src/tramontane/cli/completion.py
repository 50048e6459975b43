"""``tram completion``: what a shell needs to complete the command line."""

import click
from click.shell_completion import get_completion_class

from tramontane.cli.failures import CommandFailed


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion for a shell.

    For bash: eval "$(tram completion bash)" in ~/.bashrc.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise CommandFailed(f"no completion for {shell}")
    root = context.find_root()
    click.echo(kind(root.command, {}, "tram", "_TRAM_COMPLETE").source())
