"""Says what this machine offers for running instances and building them, and what it lacks.

``tram doctor`` runs it; it changes nothing and needs no running platform. Prints a JSON list.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tramontane.base.clock import SystemClock
from tramontane.base.errors import Unsupported
from tramontane.gateway.envoy import find_binary
from tramontane.processes.gpus import find_gpus
from tramontane.runtimes.process.runtime import ProcessRuntime
from tramontane.runtimes.runtime import Capability

TOOLS = (
    ("python", ("uv",), "comes with Tramontane", True),
    ("node", ("node",), "fetched as a wheel when a Node app is built", True),
    ("go", ("go",), "fetched as a wheel when a Go app is built", True),
    ("rust", ("cargo",), "install Rust with rustup, or the package cargo of your system", False),
    (
        "java",
        ("java", "mvn"),
        "install a JDK and Maven (Debian: default-jdk-headless maven)",
        False,
    ),
)
"""Language, programs, where they come from if missing, and whether that needs no hand."""


async def examine() -> list[dict[str, object]]:
    """Return every finding as ``{group, name, offered, required, detail}``."""
    with tempfile.TemporaryDirectory(prefix="tram-doctor-") as directory:
        runtime = ProcessRuntime(
            Path(directory) / "state", Path(directory) / "run", clock=SystemClock()
        )
        isolation = list(await runtime.capabilities())
        await runtime.close()
    groups = {
        "isolation": isolation,
        "gateway": [_gateway()],
        "builds": _tools(),
        "models": [_gpus()],
    }
    return [
        {"group": group, **asdict(capability)}
        for group, capabilities in groups.items()
        for capability in capabilities
    ]


def _gateway() -> Capability:
    try:
        binary = find_binary()
    except Unsupported as error:
        return Capability(name="envoy", offered=False, detail=error.message, required=True)
    return Capability(name="envoy", offered=True, detail=f"found {binary.name}", required=True)


def _gpus() -> Capability:
    finding = find_gpus()
    return Capability(name="gpu", offered=bool(finding.gpus), detail=finding.detail)


def _tools() -> list[Capability]:
    found: list[Capability] = []
    for language, programs, otherwise, by_itself in TOOLS:
        missing = [program for program in programs if shutil.which(program) is None]
        detail = otherwise if missing else f"found {', '.join(programs)}"
        found.append(Capability(name=language, offered=by_itself or not missing, detail=detail))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the findings; exit 1 if something required is missing."""
    parser = argparse.ArgumentParser(prog="tramontane.processes.doctor")
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("-o", "--output", choices=("json",), default="json")
    parser.parse_args(argv)
    findings = asyncio.run(examine())
    print(json.dumps(findings, indent=2))
    missing = [each for each in findings if each["required"] and not each["offered"]]
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
