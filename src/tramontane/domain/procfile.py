"""The Procfile: a line ``type: command`` for each kind of process that a source can run as.

``builders.detect`` starts what it names; the command line tells a worker from a web service by it
before anything is uploaded.
"""

from tramontane.domain.definition import ServiceKind

PROCFILE = "Procfile"
WEB = "web"
WORKER = "worker"


def read_procfile(text: str) -> dict[str, str]:
    """Return the commands by type; of two lines with one type the first counts."""
    commands: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, command = line.partition(":")
        if colon and name.strip() and command.strip():
            commands.setdefault(name.strip(), command.strip())
    return commands


def process_type(kind: ServiceKind) -> str:
    """Return the type of process that a service of this kind runs."""
    return WORKER if kind is ServiceKind.WORKER else WEB


def implied_kind(text: str) -> ServiceKind:
    """Return what a source with this Procfile is where nobody says: a worker if it is only that."""
    commands = read_procfile(text)
    return ServiceKind.WORKER if WORKER in commands and WEB not in commands else ServiceKind.WEB
