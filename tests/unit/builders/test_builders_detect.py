"""What a source is recognised as, and how it would be built and started."""

import json

import pytest

from tramontane.base.errors import InvalidRequest
from tramontane.builders.detect import detect
from tramontane.builders.recipe import EVERYTHING, shell
from tramontane.builders.source import make_tree
from tramontane.domain.artifact import Listen
from tramontane.domain.definition import BuildOptions, ServiceKind

FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
FLASK = "import flask\napp = flask.Flask(__name__)\n"
PROJECT = '[project]\nname = "x"\nversion = "1"\ndependencies = ["fastapi"]\n'
POM = '<project xmlns="x"><build><plugins>{}</plugins></build></project>'
MAIN_GO = "package main\n\nfunc main() {}\n"
CRATE = '[package]\nname = "x"\nversion = "1.0.0"\n'


def package(**fields: object) -> str:
    return json.dumps({"name": "x", **fields})


CASES = [
    ({"pyproject.toml": PROJECT, "main.py": FASTAPI}, "python", "ASGI app `app` in main.py"),
    ({"requirements.txt": "flask", "app.py": FLASK}, "python", "WSGI app `app` in app.py"),
    ({"main.py": FASTAPI}, "python", "ASGI app `app` in main.py (FastAPI)"),
    ({"src/shop/asgi.py": FASTAPI, "pyproject.toml": PROJECT}, "python", "in src/shop/asgi.py"),
    (
        {"manage.py": "", "shop/wsgi.py": "application = get_wsgi_application()"},
        "python",
        "WSGI app `application` in shop/wsgi.py (Django)",
    ),
    ({"wsgi.py": "def application(environ, start_response): ..."}, "python", "WSGI"),
    ({"asgi.py": "async def app(scope, receive, send): ..."}, "python", "ASGI"),
    (
        {"app.py": "def create_app():\n    return Flask(__name__)\n", "requirements.txt": ""},
        "python",
        "WSGI factory `create_app` in app.py",
    ),
    ({"main.py": "print('hi')"}, "python", "main.py found; it is run as it is"),
    (
        {"package.json": package(scripts={"start": "node a.js"})},
        "node",
        "`start` script (node a.js",
    ),
    ({"package.json": package(main="lib/a.js"), "lib/a.js": ""}, "node", "program lib/a.js"),
    ({"server.js": ""}, "node", "server.js found"),
    ({"package.json": package(), "index.js": "", "main.py": FASTAPI}, "node", "program index.js"),
    ({"go.mod": "module x", "main.go": MAIN_GO}, "go", "program in ."),
    ({"go.mod": "module x", "cmd/serve/main.go": MAIN_GO}, "go", "program in ./cmd/serve"),
    ({"Cargo.toml": CRATE, "src/main.rs": ""}, "rust", "binary x"),
    ({"Cargo.toml": CRATE, "src/bin/web.rs": ""}, "rust", "binary web"),
    ({"pom.xml": POM.format("")}, "java", "pom.xml found"),
    (
        {
            "pom.xml": POM.format(
                "<plugin><artifactId>spring-boot-maven-plugin</artifactId></plugin>"
            )
        },
        "java",
        "Spring Boot",
    ),
    ({"index.html": ""}, "static", "index.html found"),
    ({"public/index.html": ""}, "static", "public/index.html found"),
    ({"Procfile": "web: ./serve"}, "procfile", "started by `web` of the Procfile"),
    ({"go.mod": "module x", "main.go": MAIN_GO, "package.json": "{}"}, "go", "go.mod"),
]


@pytest.mark.parametrize(("files", "language", "reason"), CASES)
def test_a_source_is_recognised_with_its_reason(
    files: dict[str, str], language: str, reason: str
) -> None:
    found = detect(make_tree(files))
    assert found.language == language
    assert reason in str(found)
    assert found.recipe.command or language == "java"


def test_nothing_recognised_says_what_was_looked_for() -> None:
    with pytest.raises(InvalidRequest, match=r"go\.mod .* package\.json .* Procfile"):
        detect(make_tree({"notes.md": ""}))


def test_a_project_without_a_start_says_what_to_add() -> None:
    with pytest.raises(InvalidRequest, match=r"add an ASGI or WSGI app object"):
        detect(make_tree({"pyproject.toml": PROJECT, "lib.py": "x = 1"}))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"package.json": "{"}, "package.json is not valid JSON"),
        ({"package.json": "[]"}, "no JSON object"),
        ({"pyproject.toml": "a ="}, "pyproject.toml is not valid TOML"),
        ({"Cargo.toml": "[["}, "Cargo.toml is not valid TOML"),
        ({"pom.xml": "<a>"}, "pom.xml is not valid XML"),
        ({"pom.xml": "<!DOCTYPE a><a/>"}, "document type"),
        ({"go.mod": "module x", "lib.go": "package lib"}, "not one program"),
        ({"Cargo.toml": CRATE, "src/lib.rs": ""}, "not one binary"),
    ],
)
def test_a_broken_file_is_named(files: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        detect(make_tree(files))


def test_chosen_servers_listen_on_the_unix_socket() -> None:
    for files in ({"main.py": FASTAPI}, {"app.py": FLASK}, {"index.html": ""}):
        recipe = detect(make_tree(files)).recipe
        assert recipe.listen is Listen.UNIX
        assert "$TRAM_SOCKET" in recipe.command[-1]


def test_own_commands_listen_on_the_port() -> None:
    files = {"main.py": FASTAPI}
    by_procfile = detect(make_tree({**files, "Procfile": "worker: x\nweb: serve --port $PORT"}))
    by_definition = detect(make_tree(files), None, "serve")
    assert by_procfile.recipe.command == ("sh", "-c", "exec serve --port $PORT")
    assert by_definition.recipe.command == ("sh", "-c", "exec serve")
    assert by_procfile.recipe.listen is by_definition.recipe.listen is Listen.TCP


BOTH = "web: serve --port $PORT\nworker: python  tasks.py\n"


def test_a_worker_runs_its_own_line_of_the_procfile() -> None:
    tree = make_tree({"main.py": FASTAPI, "Procfile": BOTH})
    found = detect(tree, kind=ServiceKind.WORKER)
    assert found.recipe.command == ("sh", "-c", "exec python  tasks.py")
    assert "started by `worker` of the Procfile" in str(found)
    assert "started by `web` of the Procfile" in str(detect(tree))
    own = detect(tree, None, "./own", ServiceKind.WORKER)
    assert own.recipe.command == ("sh", "-c", "exec ./own")


def test_a_worker_may_be_a_program_that_needs_no_server() -> None:
    script = detect(make_tree({"main.py": "print('hi')"}), kind=ServiceKind.WORKER)
    assert script.recipe.command == ("python", "main.py")
    jar = detect(make_tree({"pom.xml": POM.format("")}), kind=ServiceKind.WORKER)
    assert jar.language == "java"


@pytest.mark.parametrize(
    "files", [{"main.py": FASTAPI}, {"index.html": ""}, {"main.py": FASTAPI, "Procfile": "web: x"}]
)
def test_a_worker_is_never_started_by_a_server(files: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="as a worker; add a Procfile with a `worker:` line"):
        detect(make_tree(files), kind=ServiceKind.WORKER)


def test_a_procfile_with_a_worker_alone_leads_to_the_kind() -> None:
    tree = make_tree({"Procfile": "worker: ./work"})
    assert detect(tree, kind=ServiceKind.WORKER).recipe.command == ("sh", "-c", "exec ./work")
    with pytest.raises(InvalidRequest, match="set `kind: worker` to run the `worker:` line"):
        detect(tree)


def test_the_language_can_be_forced() -> None:
    tree = make_tree({"main.py": FASTAPI, "index.html": ""})
    assert detect(tree, BuildOptions(language="static")).language == "static"
    with pytest.raises(InvalidRequest, match="does not look like rust"):
        detect(tree, BuildOptions(language="rust"))
    with pytest.raises(InvalidRequest, match="unknown language 'cobol'; one of: go"):
        detect(tree, BuildOptions(language="cobol"))


def test_a_build_command_takes_the_place_of_the_detected_steps() -> None:
    options = BuildOptions(command="make")
    recipe = detect(make_tree({"index.html": ""}), options).recipe
    assert [step.argv for step in recipe.steps] == [("sh", "-c", "make")]
    with pytest.raises(InvalidRequest, match=r"set `run` in tramontane\.yaml"):
        detect(make_tree({"go.mod": "module x", "main.go": MAIN_GO}), options)


def test_dependencies_are_apart_from_the_source() -> None:
    (python,) = detect(make_tree({"pyproject.toml": PROJECT, "main.py": FASTAPI})).recipe.layers
    assert python.inputs == ("pyproject.toml",)
    files = {
        "package.json": package(main="a.js", dependencies={"express": "5"}),
        "package-lock.json": "{}",
        "a.js": "",
    }
    (node,) = detect(make_tree(files)).recipe.layers
    assert node.inputs == ("package.json", "package-lock.json")
    assert node.steps[1].argv[:2] == ("npm", "ci")


@pytest.mark.parametrize(
    "files",
    [
        {"requirements.txt": "-e .", "setup.py": "", "main.py": FASTAPI},
        {"requirements.txt": "./vendored", "main.py": FASTAPI},
        {"setup.py": "", "main.py": FASTAPI},
        {"package.json": package(main="a", dependencies={"b": "file:b"}), "a": ""},
        {"package.json": package(main="a", dependencies={"b": "1"}, workspaces=["p"]), "a": ""},
    ],
)
def test_dependencies_inside_the_source_are_decided_by_all_of_it(files: dict[str, str]) -> None:
    (layer,) = detect(make_tree(files)).recipe.layers
    assert layer.inputs == (EVERYTHING,)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("serve --port $PORT", "exec serve --port $PORT"),
        ("a && b", "a && b"),
        ("A=1 b", "A=1 b"),
        ("exec a", "exec a"),
    ],
)
def test_one_command_takes_the_place_of_its_shell(line: str, wanted: str) -> None:
    assert shell(line) == ("sh", "-c", wanted)
