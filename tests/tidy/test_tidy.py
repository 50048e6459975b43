"""Rules about this repository that no linter knows. Each says why in its message."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*SOURCE, *TESTS], ids=name_of)
def test_files_and_functions_end_where_understanding_does(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= FILE_LINES_MAX, "split it by topic"
    long = [
        f"{each.name} ({each.end_lineno - each.lineno + 1} lines)"
        for each in functions(path)
        if each.end_lineno and each.end_lineno - each.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not long, f"give the steps names of their own: {', '.join(long)}"


@pytest.mark.parametrize("path", SOURCE, ids=name_of)
def test_every_promise_of_a_protocol_is_written_down(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ClassDef):
            continue
        if not any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases):
            continue
        for each in node.body:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                assert ast.get_docstring(each), f"{node.name}.{each.name} promises nothing"


@pytest.mark.parametrize("path", [*SOURCE, *TESTS], ids=name_of)
def test_nothing_is_left_for_later_in_the_code(path: Path) -> None:
    if path == Path(__file__):
        return
    found = re.findall(r"\b(?:TODO|FIXME|XXX)\b", path.read_text("utf-8"))
    assert not found, "open an issue instead: a note in the code is read by nobody in time"


@pytest.mark.parametrize("path", SOURCE, ids=name_of)
def test_imports_are_at_the_top_and_for_everybody(path: Path) -> None:
    text = path.read_text("utf-8")
    if path != ROOT / "src/tramontane/__init__.py":
        assert "TYPE_CHECKING" not in text, "with no cycles there is nothing to hide"


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "STYLE.md", "CONTRIBUTING.md"])
def test_every_path_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    named = re.findall(r"`((?:src|tests|docs|tools|bench|examples|requirements)/[\w./-]*)`", text)
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing, f"{document} names what is not there: {missing}"


def test_every_decision_says_context_decision_and_price() -> None:
    for path in sorted((ROOT / "docs/decisions").glob("*.md")):
        text = path.read_text("utf-8").lower()
        for heading in ("context", "decision", "price"):
            assert re.search(rf"^#+ .*{heading}", text, re.MULTILINE), f"{path.name}: {heading}"


def test_every_direct_dependency_has_its_reason() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    wanted = project.split("dependencies = [", 1)[1].split("]", 1)[0]
    documented = (ROOT / "docs/dependencies.md").read_text("utf-8")
    for name in re.findall(r'"([a-z-]+)', wanted):
        assert name in documented, f"docs/dependencies.md does not say why {name} is here"
