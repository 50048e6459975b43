"""What a build will do, as data: layers, steps, and how the result is started.

``detect`` writes a recipe from the source alone, ``build`` carries it out. All paths in it are
paths inside the sandbox, so a recipe is the same on every machine:

    /app                the source and what the steps add to it; read-only when it runs
    /layers/<name>      dependencies, built once for all sources that ask for the same ones
    /toolchain/<name>   tools that the platform installed (a tool of the machine keeps its path)
    /source             while a layer is built: the files that decide its content
    /cache/<name>       while building: a tool's own download or compile cache
"""

from dataclasses import dataclass

from tramontane.domain.artifact import Listen

APP = "/app"
LAYERS = "/layers"
SOURCE = "/source"
CACHE = "/cache"
TOOLCHAIN = "/toolchain"
OUTPUT = "/app/.tram"
"""Where steps put what they compiled."""

EVERYTHING = "*"
"""As the input of a layer: the whole source decides it, so it is built anew for every change."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of a build."""

    label: str
    """What it does, in words, for the log and for an error message."""
    argv: tuple[str, ...]
    directory: str = APP
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Dependencies of a program, kept apart from its source and shared by content."""

    name: str
    inputs: tuple[str, ...]
    """Files of the source that decide the content, or ``(EVERYTHING,)``."""
    steps: tuple[Step, ...]
    """They find the inputs below ``/source`` and write below ``/layers/<name>``."""
    part: str = "."
    """The part of the layer that is mounted."""
    target: str = ""
    """Where it is mounted; by default where it was built."""

    @property
    def built_at(self) -> str:
        """Where the layer's own steps see it."""
        return f"{LAYERS}/{self.name}"

    @property
    def mounted_at(self) -> str:
        """Where the source's steps and the running program see it."""
        return self.target or self.built_at


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything between an unpacked source and a program that can be started."""

    toolchains: tuple[str, ...] = ()
    """Tools the steps need."""
    runs_on: tuple[str, ...] = ()
    """Those of them that the started program needs too."""
    layers: tuple[Layer, ...] = ()
    steps: tuple[Step, ...] = ()
    target_inputs: tuple[str, ...] = ()
    """Files that decide which compile cache ``/cache/target`` is shared; none: it is not used."""
    command: tuple[str, ...] = ()
    """Empty if only the built files can tell (a jar's manifest): see ``java.find_jar``."""
    environment: tuple[tuple[str, str], ...] = ()
    path: tuple[str, ...] = ()
    """Folders that come first on ``PATH``, for the steps and for the started program."""
    listen: Listen = Listen.TCP


@dataclass(frozen=True, kw_only=True)
class Detection:
    """What a source was recognised as, why, and how it will be built."""

    language: str
    framework: str | None
    reason: str
    """For people, as in ``pyproject.toml found; ASGI app `app` in main.py (FastAPI)``."""
    recipe: Recipe

    def __str__(self) -> str:
        """Return the line that is printed at the start of a build."""
        return f"{self.language}: {self.reason}"


def shell(command: str) -> tuple[str, ...]:
    """Return argv that runs a user's command line; a single command takes the shell's place.

    Without the ``exec`` a SIGTERM would end the shell and never reach the program.
    """
    single = (
        not any(mark in command for mark in "|&;<>()`\n") and "=" not in command.partition(" ")[0]
    )
    prefix = "exec " if single and not command.startswith(("exec ", "cd ", "export ")) else ""
    return ("sh", "-c", f"{prefix}{command}")
