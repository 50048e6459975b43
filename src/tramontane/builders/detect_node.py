"""Recognise Node sources and write their recipes; called by ``detect``."""

import json
import re
import shlex
from typing import Any, cast

from tramontane.base.errors import InvalidRequest
from tramontane.builders.recipe import APP, EVERYTHING, Detection, Layer, Recipe, Step, shell
from tramontane.builders.source import SourceTree

LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
ENTRIES = ("server.js", "index.js", "app.js", "main.js", "server.mjs", "index.mjs")
OWN_HOOKS = ("preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare")
DIRECT = re.compile(r"node(\s+[\w@%+=:,./-]+)+")
"""A start script that needs no shell: running node itself starts faster and gets the signals."""


def detect_node(tree: SourceTree) -> Detection | None:
    """Recognise a ``package.json``, or one of the usual names of a server without one."""
    if not tree.has("package.json"):
        entry = next((name for name in ENTRIES if tree.has(name)), None)
        if entry is None or tree.has("index.html"):
            return None
        recipe = _recipe((), (), ("node", entry))
        return Detection(language="node", framework=None, reason=f"{entry} found", recipe=recipe)
    package = _package(tree)
    scripts = _table(package, "scripts")
    builds = "build" in scripts
    command, how = _start(tree, package, scripts)
    steps = (Step(label="run the build script", argv=("npm", "run", "build")),) if builds else ()
    layers = _layers(tree, package, scripts)
    reason = f"package.json found; {how}"
    if builds:
        reason += "; `build` script"
    if tree.has("yarn.lock", "pnpm-lock.yaml") and not tree.has(*LOCKS):
        reason += "; installed by npm, which does not read the other tool's lock file"
    framework = next((n for n in FRAMEWORKS if n in _table(package, "dependencies")), None)
    return Detection(
        language="node",
        framework=framework,
        reason=reason,
        recipe=_recipe(layers, steps, command),
    )


FRAMEWORKS = ("next", "express", "fastify", "koa", "hono", "@nestjs/core", "@hapi/hapi")


def _recipe(layers: tuple[Layer, ...], steps: tuple[Step, ...], command: tuple[str, ...]) -> Recipe:
    return Recipe(
        toolchains=("node",),
        runs_on=("node",),
        layers=layers,
        steps=steps,
        command=command,
        environment=(("NODE_ENV", "production"),),
        path=(f"{APP}/node_modules/.bin",),
    )


def _package(tree: SourceTree) -> dict[str, Any]:
    try:
        value = json.loads(tree.text("package.json"))
    except ValueError as error:
        raise InvalidRequest(
            f"package.json is not valid JSON: {error}", path="package.json"
        ) from error
    if not isinstance(value, dict):
        raise InvalidRequest("package.json is no JSON object", path="package.json")
    return cast("dict[str, Any]", value)


def _table(package: dict[str, Any], name: str) -> dict[str, str]:
    value = package.get(name)
    return cast("dict[str, str]", value) if isinstance(value, dict) else {}


def _start(
    tree: SourceTree, package: dict[str, Any], scripts: dict[str, str]
) -> tuple[tuple[str, ...], str]:
    start = scripts.get("start", "").strip()
    if start and ("prestart" in scripts or "poststart" in scripts):
        return ("npm", "start"), "`start` script with hooks, run by npm"
    if DIRECT.fullmatch(start):
        return tuple(shlex.split(start)), f"`start` script ({start})"
    if start:
        return shell(start), f"`start` script ({start})"
    main = package.get("main")
    entries = (main.removeprefix("./"), *ENTRIES) if isinstance(main, str) else ENTRIES
    entry = next((name for name in entries if tree.has(name)), None)
    if entry is None:
        return (), "no `start` script, `main` or server.js"
    return ("node", entry), f"program {entry}"


def _layers(
    tree: SourceTree, package: dict[str, Any], scripts: dict[str, str]
) -> tuple[Layer, ...]:
    development = _table(package, "devDependencies")
    dependencies = {
        **_table(package, "dependencies"),
        **_table(package, "optionalDependencies"),
        **development,
    }
    if not dependencies:
        return ()
    # Workspaces, local packages and the package's own install hooks look at more than the lists.
    whole = (
        "workspaces" in package
        or any(hook in scripts for hook in OWN_HOOKS)
        or any(spec.startswith(("file:", "link:", "./", "../")) for spec in dependencies.values())
    )
    lists = tuple(name for name in ("package.json", *LOCKS, ".npmrc") if tree.has(name))
    install = ("npm", "ci") if tree.has(*LOCKS) else ("npm", "install", "--no-package-lock")
    # A build script runs tools that are development dependencies.
    omit = () if "build" in scripts else ("--omit=dev",)
    at = "/layers/node"
    steps = (
        Step(label="copy the package lists", argv=("cp", "-R", "/source/.", "."), directory=at),
        Step(
            label="install npm packages",
            argv=(*install, *omit, "--no-audit", "--no-fund", "--no-update-notifier"),
            directory=at,
        ),
        # Bundlers write here while the layer itself is read-only: see ``build``.
        Step(label="prepare", argv=("mkdir", "-p", *SCRATCH), directory=at),
    )
    layer = Layer(
        name="node",
        inputs=(EVERYTHING,) if whole else lists,
        steps=steps,
        part="node_modules",
        target=f"{APP}/node_modules",
    )
    return (layer,)


SCRATCH = ("node_modules/.cache", "node_modules/.vite")
