"""Recognise Go, Rust and Java sources and write their recipes; called by ``detect``."""

import re
from typing import Any
from xml.etree import ElementTree

from tramontane.base.errors import InvalidRequest
from tramontane.builders.recipe import CACHE, OUTPUT, Detection, Recipe, Step
from tramontane.builders.source import SourceTree

BINARY = f"{OUTPUT}/app"

JAVA_FLAGS = (
    # One small heap in a small sandbox: the serial collector starts fastest and costs no threads.
    "-XX:+UseSerialGC",
    "-XX:MaxRAMPercentage=75",
    "-Xshare:auto",
    "-XX:+ExitOnOutOfMemoryError",
)


def detect_go(tree: SourceTree) -> Detection | None:
    """Recognise a Go module; its one program is the top package or the one below ``cmd``."""
    if not tree.has("go.mod"):
        return None
    package = _go_package(tree)
    build = Step(
        label="compile",
        argv=("go", "build", "-trimpath", "-o", BINARY, package),
        # A static binary needs nothing of the machine it runs on.
        environment=(("CGO_ENABLED", "0"),),
    )
    recipe = Recipe(toolchains=("go",), steps=(build,), command=(BINARY,))
    reason = f"go.mod found; program in {package}"
    return Detection(language="go", framework=None, reason=reason, recipe=recipe)


def _go_package(tree: SourceTree) -> str:
    found = {
        name.rpartition("/")[0]
        for name, text in tree.texts.items()
        if name.endswith(".go")
        and not name.endswith("_test.go")
        and re.search(r"^package main\b", text, re.MULTILINE)
        and re.search(r"^func main\(\)", text, re.MULTILINE)
    }
    if "" in found:
        return "."
    commands = sorted(folder for folder in found if folder.startswith("cmd/"))
    if len(commands) == 1:
        return f"./{commands[0]}"
    if len(found) == 1:
        return f"./{found.pop()}"
    listed = ", ".join(sorted(found)) or "none"
    raise InvalidRequest(
        f"go.mod found, but not one program to start: `package main` is in {listed}; "
        "put it at the top, or alone below cmd/",
        path="build.root",
    )


def detect_rust(tree: SourceTree) -> Detection | None:
    """Recognise a Cargo package and the one binary it makes."""
    if not tree.has("Cargo.toml"):
        return None
    binary = _rust_binary(tree)
    locked = ("--locked",) if tree.has("Cargo.lock") else ()
    steps = (
        # Cargo compares times: a file older than the shared cache would pass for unchanged.
        Step(label="mark sources", argv=("find", ".", "-type", "f", "-exec", "touch", "{}", "+")),
        Step(
            label="compile",
            argv=("cargo", "build", "--release", "--bin", binary, *locked),
            environment=(("CARGO_TARGET_DIR", f"{CACHE}/target"), ("CARGO_TERM_COLOR", "never")),
        ),
        Step(
            label="keep the binary",
            argv=("install", "-D", f"{CACHE}/target/release/{binary}", BINARY),
        ),
    )
    recipe = Recipe(
        toolchains=("rust",),
        steps=steps,
        target_inputs=("Cargo.toml", "Cargo.lock"),
        command=(BINARY,),
    )
    reason = f"Cargo.toml found; binary {binary}"
    return Detection(language="rust", framework=None, reason=reason, recipe=recipe)


def _rust_binary(tree: SourceTree) -> str:
    manifest = tree.toml("Cargo.toml")
    package: dict[str, Any] = manifest.get("package", {})
    declared = [binary["name"] for binary in manifest.get("bin", []) if "name" in binary]
    names: list[str] = [package["default-run"]] if "default-run" in package else declared
    if not names and tree.has("src/main.rs") and "name" in package:
        names = [package["name"]]
    if not names:
        found = (re.fullmatch(r"src/bin/([^/]+)(?:\.rs|/main\.rs)", name) for name in tree.names)
        names = sorted({match.group(1) for match in found if match})
    if len(names) != 1:
        listed = ", ".join(names) or "none"
        raise InvalidRequest(
            f"Cargo.toml found, but not one binary to start (found: {listed}); set "
            "`default-run` in [package], or `build.root` to the folder of one package",
            path="build.root",
        )
    return names[0]


def detect_java(tree: SourceTree) -> Detection | None:
    """Recognise a Maven project; which jar is started shows after it is packaged."""
    if not tree.has("pom.xml"):
        return None
    is_spring = "spring-boot-maven-plugin" in _plugins(tree)
    goals = ("package",) if is_spring else ("package", COPY_DEPENDENCIES)
    build = Step(
        label="package with Maven",
        argv=(
            *(
                "mvn",
                "--batch-mode",
                "--no-transfer-progress",
                "-DskipTests",
                "-Dstyle.color=never",
            ),
            *(f"-Dmaven.repo.local={CACHE}/maven", "-DincludeScope=runtime", *goals),
        ),
    )
    recipe = Recipe(toolchains=("java",), runs_on=("java",), steps=(build,))
    reason = "pom.xml found" + ("; Spring Boot" if is_spring else "")
    return Detection(
        language="java",
        framework="Spring Boot" if is_spring else None,
        reason=reason,
        recipe=recipe,
    )


COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


def _plugins(tree: SourceTree) -> set[str]:
    text = tree.text("pom.xml")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InvalidRequest("pom.xml has a document type; remove it", path="pom.xml")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - entities were refused above
    except ElementTree.ParseError as error:
        raise InvalidRequest(f"pom.xml is not valid XML: {error}", path="pom.xml") from error
    plugins = (element for element in root.iter() if element.tag.endswith("}plugin"))
    names = (child.text for plugin in plugins for child in plugin if _is_id(child.tag))
    return {name.strip() for name in names if name}


def _is_id(tag: str) -> bool:
    return tag.endswith("}artifactId")
