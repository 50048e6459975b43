"""Find the application object of a Python web program by reading, never running, its modules.

``detect_python`` calls ``find_app``; pure. What counts is how a module-level name is made: by a
known class (``FastAPI()``), by a known function (``get_wsgi_application()``), or as a function
with the arguments that ASGI or WSGI prescribe.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tramontane.builders.source import SourceTree


class Interface(StrEnum):
    """How a server calls a Python program."""

    ASGI = "ASGI"
    WSGI = "WSGI"


@dataclass(frozen=True, kw_only=True)
class PythonApp:
    """An application object and how a server names it."""

    interface: Interface
    file: str
    module: str
    """Dotted, as Python imports it from the top of the source."""
    name: str
    framework: str
    is_factory: bool = False


MAKERS = {
    **dict.fromkeys(("FastAPI", "Starlette", "Litestar", "Quart", "BlackSheep"), Interface.ASGI),
    **dict.fromkeys(("get_asgi_application", "FastMCP", "Sanic"), Interface.ASGI),
    **dict.fromkeys(("Flask", "Bottle", "get_wsgi_application", "Dash"), Interface.WSGI),
}
FRAMEWORK_NAMES = {"get_asgi_application": "Django", "get_wsgi_application": "Django"}
FACTORIES = ("create_app", "make_app", "get_app")
MODULES = ("main", "app", "wsgi", "asgi", "application", "server", "api", "index", "__init__")
"""Names that are looked at first, in this order."""
OBJECTS = ("app", "application", "api", "server", "asgi", "wsgi")
ASIDE = ("tests", "test", "docs", "examples", "scripts", "migrations", "benchmarks")


def find_app(tree: SourceTree) -> PythonApp | None:
    """Return the application object that a server should be given; the nearest, likeliest one."""
    for file in sorted(_modules(tree), key=_rank):
        found = _app_in(file, tree.text(file))
        if found is not None:
            return found
    return None


def module_of(file: str) -> str:
    """Return the dotted name of a module file, with ``src/`` as a second top."""
    parts = file.removeprefix("src/").removesuffix(".py").split("/")
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def _modules(tree: SourceTree) -> Iterator[str]:
    for name in tree.texts:
        *folders, last = name.split("/")
        reachable = all(part.isidentifier() and part not in ASIDE for part in folders)
        is_module = last.endswith(".py") and not last.startswith(("test_", "conftest"))
        if reachable and is_module and module_of(name) and name != "setup.py":
            yield name


def _rank(file: str) -> tuple[int, int, str]:
    stem = file.rpartition("/")[2].removesuffix(".py")
    likely = MODULES.index(stem) if stem in MODULES else len(MODULES)
    # Django's WSGI module is preferred over its ASGI twin: both always exist, most views are sync.
    return (file.removeprefix("src/").count("/"), likely, file)


def _app_in(file: str, text: str) -> PythonApp | None:
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError):
        # The build reports it in Python's own words when it compiles the module.
        return None
    found: dict[str, PythonApp] = {}
    for node in body:
        for app in _apps_of(node, file):
            found.setdefault(app.name, app)
    for name in (*OBJECTS, *FACTORIES):
        if name in found:
            return found[name]
    return next((app for app in found.values() if not app.is_factory), None)


def _apps_of(node: ast.stmt, file: str) -> Iterator[PythonApp]:
    module = module_of(file)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        interface = _interface_of(node)
        if interface is not None and node.name in OBJECTS:
            yield PythonApp(
                interface=interface, file=file, module=module, name=node.name, framework="plain"
            )
        made = _made_in(node) if node.name in FACTORIES and not _required(node) else None
        if made is not None:
            yield PythonApp(
                interface=MAKERS[made],
                file=file,
                module=module,
                name=node.name,
                framework=FRAMEWORK_NAMES.get(made, made),
                is_factory=True,
            )
        return
    for name, maker in _assignments(node):
        yield PythonApp(
            interface=MAKERS[maker],
            file=file,
            module=module,
            name=name,
            framework=FRAMEWORK_NAMES.get(maker, maker),
        )


def _assignments(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """Yield (name, maker) for ``name = Maker(…)``, annotated or not."""
    if isinstance(node, ast.Assign):
        targets, value = node.targets, node.value
    elif isinstance(node, ast.AnnAssign):
        targets, value = [node.target], node.value
    else:
        return
    maker = _maker(value)
    for target in targets:
        if isinstance(target, ast.Name) and maker is not None:
            yield target.id, maker


def _maker(value: ast.expr | None) -> str | None:
    if not isinstance(value, ast.Call):
        return None
    function = value.func
    name = (
        function.id
        if isinstance(function, ast.Name)
        else function.attr
        if isinstance(function, ast.Attribute)
        else ""
    )
    return name if name in MAKERS else None


def _made_in(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    makers = (_maker(inner) for inner in ast.walk(node) if isinstance(inner, ast.Call))
    return next((maker for maker in makers if maker is not None), None)


def _interface_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Interface | None:
    names = [argument.arg for argument in node.args.args]
    if isinstance(node, ast.AsyncFunctionDef) and names == ["scope", "receive", "send"]:
        return Interface.ASGI
    if isinstance(node, ast.FunctionDef) and names[:1] == ["environ"] and len(names) == 2:
        return Interface.WSGI
    return None


def _required(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return len(node.args.args) > len(node.args.defaults)
