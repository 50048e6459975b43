"""Recognise Python sources and write their recipes; called by ``detect``.

Where the platform chooses the server it listens on ``$TRAM_SOCKET``: uvicorn for ASGI, gunicorn
for WSGI (well kept, drain on SIGTERM, take a Unix socket). They are resolved together with the
program's own dependencies, so that shared packages have one version.
"""

import re
from typing import Any, cast

from tramontane.builders.python_apps import Interface, PythonApp, find_app
from tramontane.builders.recipe import APP, EVERYTHING, Detection, Layer, Recipe, Step
from tramontane.builders.source import SourceTree
from tramontane.domain.artifact import Listen

MARKERS = ("pyproject.toml", "requirements.txt", "setup.py", "manage.py", "uv.lock")
SCRIPTS = ("main.py", "app.py", "server.py", "run.py")
LAYER = "/layers/python"
INTERPRETER = f"{LAYER}/bin/python"

SERVERS = {
    Interface.ASGI: ("uvicorn>=0.30", "uvloop>=0.19", "httptools>=0.6", "websockets>=12"),
    Interface.WSGI: ("gunicorn>=22",),
}
KEEP_ALIVE_S = 620
"""The gateway closes idle connections, never the program: that would race with a request."""

ENVIRONMENT = (
    ("PYTHONUNBUFFERED", "1"),  # a line in the log at once, not when a buffer is full
    ("PYTHONDONTWRITEBYTECODE", "1"),  # it was all compiled by the build; /app is read-only
)


def detect_python(tree: SourceTree) -> Detection | None:
    """Recognise a Python project, or an ASGI or WSGI app object in a source without one."""
    marker = next((name for name in MARKERS if tree.has(name)), None)
    app = find_app(tree)
    if marker is None and (app is None or tree.has("package.json")):
        return None
    script = next((name for name in SCRIPTS if tree.has(name)), None)
    start = "no app object and no main.py"
    command: tuple[str, ...] = ()
    if app is not None:
        command = serve(app)
        kind = "factory" if app.is_factory else "app"
        start = f"{app.interface} {kind} `{app.name}` in {app.file} ({app.framework})"
    elif script is not None:
        command = ("python", script)
        start = f"program {script}"
    return Detection(
        language="python",
        framework=app.framework if app else None,
        reason=f"{marker} found; {start}" if marker else start,
        recipe=_recipe(tree, app, command),
    )


def detect_script(tree: SourceTree) -> Detection | None:
    """Recognise a plain script; called after everything that is told by a surer sign."""
    script = next((name for name in SCRIPTS if tree.has(name)), None)
    if script is None:
        return None
    return Detection(
        language="python",
        framework=None,
        reason=f"{script} found; it is run as it is",
        recipe=_recipe(tree, None, ("python", script)),
    )


def serve(app: PythonApp) -> tuple[str, ...]:
    """Return the command that serves an application object on ``$TRAM_SOCKET``."""
    if app.interface is Interface.ASGI:
        factory = " --factory" if app.is_factory else ""
        line = (
            f"exec python -m uvicorn {app.module}:{app.name}{factory}"
            f' --uds "$TRAM_SOCKET" --no-access-log --timeout-keep-alive {KEEP_ALIVE_S}'
            " --proxy-headers --forwarded-allow-ips '*'"
        )
    else:
        call = "()" if app.is_factory else ""
        line = (
            f"exec python -m gunicorn '{app.module}:{app.name}{call}'"
            f' --bind "unix:$TRAM_SOCKET" --worker-class gthread --threads 16'
            f" --keep-alive {KEEP_ALIVE_S} --graceful-timeout 3600 --no-control-socket"
            " --worker-tmp-dir /tmp --forwarded-allow-ips '*'"
        )
    return ("sh", "-c", line)


def _recipe(tree: SourceTree, app: PythonApp | None, command: tuple[str, ...]) -> Recipe:
    layers = _layers(tree, app)
    paths = [APP, *([f"{APP}/src"] if any(n.startswith("src/") for n in tree.names) else [])]
    return Recipe(
        toolchains=("python", "uv"),
        runs_on=("python",),
        layers=layers,
        steps=(*_django_steps(tree, app), *_compile_steps(app, command)),
        command=command,
        environment=(*ENVIRONMENT, ("PYTHONPATH", ":".join(paths))),
        path=(f"{LAYER}/bin",) if layers else (),
        listen=Listen.UNIX if app is not None else Listen.TCP,
    )


# -I: modules of the source must not take the place of the compiler's own. The artifact never
# changes, so Python need not compare times at each import.
COMPILE = "python -I -m compileall -q --invalidation-mode unchecked-hash"


def _compile_steps(app: PythonApp | None, command: tuple[str, ...]) -> tuple[Step, ...]:
    """Compile what starts, which must succeed, and then the rest, where templates may not."""
    file = app.file if app is not None else command[-1] if command else None
    first = (*COMPILE.split(), f"{APP}/{file}")
    rest = ("sh", "-c", f"{COMPILE} -q -x '/(node_modules|[.]git)/' {APP} || true")
    strict = (Step(label=f"compile {file}", argv=first),) if file else ()
    return (*strict, Step(label="compile to bytecode", argv=rest))


def _django_steps(tree: SourceTree, app: PythonApp | None) -> tuple[Step, ...]:
    settings = (text for name, text in tree.texts.items() if "settings" in name)
    has_static_root = any(re.search(r"^STATIC_ROOT\s*=", t, re.MULTILINE) for t in settings)
    if app is None or app.framework != "Django" or not tree.has("manage.py") or not has_static_root:
        return ()
    argv = ("python", "manage.py", "collectstatic", "--noinput")
    return (Step(label="collect static files", argv=argv),)


def _layers(tree: SourceTree, app: PythonApp | None) -> tuple[Layer, ...]:
    servers = SERVERS[app.interface] if app else ()
    inputs, arguments, before = _dependencies(tree)
    if not arguments and not servers:
        return ()
    install = ("uv", "pip", "install", "--python", INTERPRETER, "--compile-bytecode")
    steps = (
        Step(
            label="create the Python environment",
            argv=("uv", "venv", "--quiet", "--relocatable", "--allow-existing", LAYER),
            directory="/source",
        ),
        *before,
        Step(
            label="install Python packages",
            argv=(*install, *arguments, *servers),
            directory="/source",
            environment=(("PYC_INVALIDATION_MODE", "UNCHECKED_HASH"),),
        ),
    )
    return (Layer(name="python", inputs=inputs, steps=steps),)


def _dependencies(
    tree: SourceTree,
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Step, ...]]:
    """Return (files that decide them, arguments of the installer, steps before it)."""
    project = _project(tree)
    if tree.has("uv.lock") and tree.has("pyproject.toml") and not _is_local(tree.text("uv.lock")):
        export = (
            *("uv", "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project"),
            *("--no-hashes", "--output-file", "/tmp/requirements.lock"),  # noqa: S108
        )
        step = Step(label="read uv.lock", argv=export, directory="/source")
        arguments = ("--requirement", "/tmp/requirements.lock")  # noqa: S108
        return ("pyproject.toml", "uv.lock"), arguments, (step,)
    if tree.has("requirements.txt"):
        lists = _requirement_files(tree)
        whole = any(_is_local(tree.text(name)) for name in lists)
        inputs = (EVERYTHING,) if whole else (*lists,)
        return inputs, ("--requirement", "requirements.txt"), ()
    dynamic = "dependencies" in cast("list[str]", project.get("dynamic", []))
    if "name" in project and not dynamic:
        if not project.get("dependencies"):
            return (), (), ()
        return ("pyproject.toml",), ("--requirement", "pyproject.toml"), ()
    if tree.has("setup.py") or dynamic or _is_poetry(tree):
        # Only the project's own build can tell the dependencies: the source is installed too.
        return (EVERYTHING,), (".",), ()
    return (), (), ()


def _project(tree: SourceTree) -> dict[str, Any]:
    value = tree.toml("pyproject.toml").get("project", {})
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _is_poetry(tree: SourceTree) -> bool:
    return "poetry" in tree.toml("pyproject.toml").get("tool", {})


def _requirement_files(tree: SourceTree) -> tuple[str, ...]:
    pattern = re.compile(r"(?:requirements/)?[\w.-]*(?:requirements|constraints|base|prod)[\w.-]*")
    inside = (name for name in tree.names if name.startswith("requirements/"))
    top = (name for name in tree.names if pattern.fullmatch(name) and name.endswith(".txt"))
    return tuple(sorted({*inside, *top}))


def _is_local(text: str) -> bool:
    """Tell whether a list of requirements points into the source itself."""
    return bool(
        re.search(r"^\s*(-e\b|--editable\b|\.{1,2}/|file:)|@\s*file:", text, re.MULTILINE)
        or re.search(r'source = \{ (editable|directory|path) = "(?!\.")', text)
    )
