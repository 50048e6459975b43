"""Recognise what a source is and write the recipe for it: pure, from names and a few texts.

``build`` calls it with the unpacked upload; ``tram plan`` may call it to explain beforehand.
The order decides where a source could be several things: compiled languages name themselves by
one file and come first; a Python or Node project next; then plain files. A ``Procfile`` or a
command of the user changes how the result is started, never what it is.
"""

import dataclasses
from collections.abc import Callable

from tramontane.base.errors import InvalidRequest
from tramontane.builders.detect_compiled import detect_go, detect_java, detect_rust
from tramontane.builders.detect_node import detect_node
from tramontane.builders.detect_python import detect_python, detect_script
from tramontane.builders.recipe import Detection, Recipe, Step, shell
from tramontane.builders.source import SourceTree
from tramontane.builders.static_server import STATIC_COMMAND
from tramontane.domain.artifact import Listen
from tramontane.domain.definition import BuildOptions, ServiceKind
from tramontane.domain.procfile import PROCFILE, WORKER, process_type, read_procfile

Detector = Callable[[SourceTree], Detection | None]

STATIC_ROOTS = ("", "public/")


def detect(
    tree: SourceTree,
    options: BuildOptions | None = None,
    start_command: str | None = None,
    kind: ServiceKind = ServiceKind.WEB,
) -> Detection:
    """Return what the source is and how to build it.

    ``options.language`` asks for one detector only; ``options.command`` takes the place of the
    steps that would compile the source; ``start_command`` takes the place of the command that
    would start it and listens on ``$PORT``. ``kind`` decides which line of a Procfile counts, and a
    worker is never started by a server. Raises ``InvalidRequest`` if nothing is recognised.
    """
    options = options or BuildOptions()
    process = process_type(kind)
    command = start_command or read_procfile(tree.text(PROCFILE)).get(process)
    found = _recognise(tree, options.language, command)
    if options.command:
        found = _with_build_command(found, options.command)
    if command:
        origin = "the command given" if start_command else f"`{process}` of the Procfile"
        return _with_start_command(found, command, origin)
    _check_start(found, tree, kind)
    return found


def _check_start(found: Detection, tree: SourceTree, kind: ServiceKind) -> None:
    """Raise ``InvalidRequest`` unless what was detected can start a service of this kind."""
    works = kind is ServiceKind.WORKER
    starts = bool(found.recipe.command) or found.language in SELF_STARTING
    # Where the platform chose a server, that answers requests and does nothing else.
    if starts and not (works and found.recipe.listen is Listen.UNIX):
        return
    line = f"add a Procfile with a `{process_type(kind)}:` line"
    hint = line if works else STARTS.get(found.language, line)
    if not works and WORKER in read_procfile(tree.text(PROCFILE)):
        hint = f"set `kind: worker` to run the `{WORKER}:` line of its Procfile, {hint}"
    raise InvalidRequest(
        f"{found.language} source recognised ({found.reason}), but not how to start it"
        f"{' as a worker' if works else ''}; {hint}, or set `run` in tramontane.yaml",
        path="command",
    )


def detect_static(tree: SourceTree) -> Detection | None:
    """Recognise files to be served as they are, by an ``index.html``."""
    for root in STATIC_ROOTS:
        if tree.has(f"{root}index.html"):
            recipe = Recipe(
                toolchains=("python", "static"),
                runs_on=("python", "static"),
                command=STATIC_COMMAND,
                environment=(("TRAM_STATIC_ROOT", f"/app/{root}".rstrip("/")),),
                listen=Listen.UNIX,
            )
            return Detection(
                language="static",
                framework=None,
                reason=f"{root}index.html found; the files are served as they are",
                recipe=recipe,
            )
    return None


def detect_command(tree: SourceTree) -> Detection | None:
    """Recognise any directory whose Procfile says how to start it; ``python`` is at hand."""
    if not tree.has(PROCFILE):
        return None
    return _command_only("Procfile found")


DETECTORS: dict[str, tuple[Detector, ...]] = {
    "go": (detect_go,),
    "rust": (detect_rust,),
    "java": (detect_java,),
    "python": (detect_python, detect_script),
    "node": (detect_node,),
    "static": (detect_static,),
    "procfile": (detect_command,),
}
ORDER: tuple[Detector, ...] = (
    *(detect_go, detect_rust, detect_java, detect_python, detect_node, detect_static),
    *(detect_script, detect_command),
)
SELF_STARTING = ("java",)
"""What is started is read from the built files."""
STARTS = {
    "python": "add an ASGI or WSGI app object `app` in main.py, or a main.py that listens on $PORT",
    "node": "add a `start` script or `main` to package.json",
    "go": "let the build command stand aside, because it replaces the detected build",
    "rust": "let the build command stand aside, because it replaces the detected build",
}
LOOKED_FOR = (
    "go.mod (Go), Cargo.toml (Rust), pom.xml (Java), pyproject.toml, requirements.txt, setup.py or "
    "manage.py (Python), package.json (Node), index.html (static files), main.py, Procfile"
)


def _recognise(tree: SourceTree, language: str | None, command: str | None) -> Detection:
    if language is not None and language not in DETECTORS:
        known = ", ".join(DETECTORS)
        raise InvalidRequest(
            f"unknown language {language!r}; one of: {known}", path="build.language"
        )
    for detector in DETECTORS[language] if language else ORDER:
        found = detector(tree)
        if found is not None:
            return found
    if language is not None:
        raise InvalidRequest(
            f"the source does not look like {language}; remove `build.language`, or set "
            "`build.root` to the folder that holds it",
            path="build.language",
        )
    if command is not None:
        return _command_only("nothing recognised")
    raise InvalidRequest(
        f"nothing recognised in the source; looked for {LOOKED_FOR}; add one of them, add a "
        "Procfile with a `web:` or `worker:` line, or set `build.root` to the folder that holds it",
        path="build",
    )


def _command_only(reason: str) -> Detection:
    recipe = Recipe(toolchains=("python",), runs_on=("python",))
    return Detection(language="procfile", framework=None, reason=reason, recipe=recipe)


def _with_build_command(found: Detection, command: str) -> Detection:
    step = Step(label="run the build command", argv=("sh", "-c", command))
    compiled = found.language in {"go", "rust"}
    recipe = dataclasses.replace(
        found.recipe,
        steps=(step,),
        # The detected command would start a file that the detected steps no longer make.
        command=() if compiled else found.recipe.command,
    )
    return dataclasses.replace(found, recipe=recipe, reason=f"{found.reason}; own build command")


def _with_start_command(found: Detection, command: str, origin: str) -> Detection:
    recipe = dataclasses.replace(found.recipe, command=shell(command), listen=Listen.TCP)
    return dataclasses.replace(found, recipe=recipe, reason=f"{found.reason}; started by {origin}")
