"""Turn an uploaded archive into an artifact: unpack, detect, layers, steps, publish.

``reconcile`` calls ``build``. The same archive, options and toolchains give the same artifact
without work; the same dependencies give the same layer without work. See ``store`` for why a
crash leaves nothing half done, and ``sandbox`` for what the code of a build can reach.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tramontane.base.errors import BuildFailed, InvalidRequest
from tramontane.builders.confinement import PROXY_PORT, Command, Confinement
from tramontane.builders.detect import detect
from tramontane.builders.environment import (
    BASE_PATH,
    MAVEN_SETTINGS,
    build_environment,
    enclosed_environment,
    readable_paths,
    tool_environment,
)
from tramontane.builders.java import find_start
from tramontane.builders.reach import Reach, make_reach
from tramontane.builders.recipe import APP, CACHE, EVERYTHING, SOURCE, Detection, Layer, Step
from tramontane.builders.sandbox import (
    USERS,
    Bind,
    Machine,
    look_at_machine,
    relocate,
    sandbox_argv,
)
from tramontane.builders.settings import BuildSettings, Isolation, Log
from tramontane.builders.source import read_tree
from tramontane.builders.store import Store, digest_of, remove_tree
from tramontane.builders.toolchains import Finder, Toolchain, find_toolchain
from tramontane.builders.unpack import unpack
from tramontane.domain.artifact import Artifact, Mount
from tramontane.domain.definition import BuildOptions, ServiceKind

PROXY = f"http://127.0.0.1:{PROXY_PORT}"
CONFIGURATION = (
    *("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "/etc/uv/uv.toml"),
    *("/etc/npmrc", "/etc/maven/settings.xml"),
)
"""Files of the machine that say where packages come from."""

RECIPES_VERSION = 1
"""Raised when recipes change so that artifacts built before must not be used again."""

SCRATCH = ("node_modules/.cache", "node_modules/.vite")
"""Folders of a read-only layer that build tools write to; thrown away after the build."""


@asynccontextmanager
async def build(
    archive: Path,
    options: BuildOptions,
    *,
    settings: BuildSettings,
    log: Log,
    start_command: str | None = None,
    kind: ServiceKind = ServiceKind.WEB,
) -> AsyncGenerator[Artifact]:
    """Build an uploaded ``.tar.gz`` and give the artifact; at once if it is built already.

    Garbage collection leaves the artifact alone while the block runs, which is the time to record
    it. ``start_command`` is the definition's own command, if it has one; without, ``kind`` decides
    how the source is started. May be cancelled at any
    time, which ends all processes of the build; builds of the same digest run once. Raises
    ``InvalidRequest`` (the upload or an option is wrong), ``BuildFailed`` (a step failed; its
    last lines are in ``detail``) or ``Unsupported`` (a toolchain is missing).
    """
    store = Store(settings.root)
    store.ensure_folders()
    source = await asyncio.to_thread(_hash_file, archive)
    asked = (source, vars_of(options), start_command, kind.value)
    key = digest_of(RECIPES_VERSION, *asked, settings.scope)
    async with AsyncExitStack() as held:
        async with store.lock(f"build-{key}"):
            reach = await asyncio.to_thread(_read_reach, settings)
            staged = store.make_staging(f"build-{key}")
            confinement = Confinement(settings, reach, log)
            try:
                unpacked = staged / "app"
                await asyncio.to_thread(unpack, archive, unpacked, settings.limits)
                app = _choose_root(unpacked, options.root)
                tree = await asyncio.to_thread(read_tree, app)
                found = detect(tree, options, start_command, kind)
                log(str(found))
                finder = Finder(settings=settings, store=store, log=log)
                names = found.recipe.toolchains
                toolchains = {name: await find_toolchain(name, finder) for name in names}
                work = Work(
                    settings=settings,
                    store=store,
                    log=log,
                    found=found,
                    toolchains=toolchains,
                    machine=look_at_machine(),
                    reach=reach,
                    confinement=confinement,
                    held=held,
                )
                digest = "sha256:" + digest_of(key, work.versions, work.places)
                artifact = await work.ensure(staged, app, digest)
            finally:
                await confinement.end()
                if staged.exists():
                    await asyncio.to_thread(remove_tree, staged)
        yield artifact


def vars_of(options: BuildOptions) -> dict[str, str | None]:
    """Return what of the options decides an artifact's content."""
    return {"language": options.language, "command": options.command, "root": options.root}


@dataclass(frozen=True, kw_only=True)
class Work:
    """One build on its way: what was found out, and the steps that remain."""

    settings: BuildSettings
    store: Store
    log: Log
    found: Detection
    toolchains: dict[str, Toolchain]
    machine: Machine
    reach: Reach
    confinement: Confinement
    held: AsyncExitStack
    """What garbage collection leaves alone until the artifact is recorded."""

    @property
    def versions(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """The toolchains, as they enter the keys."""
        return [(tool.name, tool.version, tool.path) for tool in self.toolchains.values()]

    @property
    def places(self) -> list[str]:
        """Where the tools lie that the program runs on: an artifact mounts them from there."""
        names = self.found.recipe.runs_on
        return [mount.source for name in names for mount in self.toolchains[name].mounts]

    async def ensure(self, staged: Path, app: Path, digest: str) -> Artifact:
        """Return the artifact, built now if no other build has left it."""
        await self._hold(self.store.artifact_folder(digest))
        known = self.store.read_artifact(digest)
        if known is not None:
            self.store.mark_used(digest)
            self.log("nothing changed since it was built")
            return known
        return await self._carry_out(staged, app, digest)

    async def _hold(self, folder: Path) -> None:
        await self.held.enter_async_context(self.store.hold(folder))

    async def _carry_out(self, staged: Path, app: Path, digest: str) -> Artifact:
        """Build the layers that are missing, run the steps, and publish the artifact."""
        recipe = self.found.recipe
        layers = [(layer, await self._ensure_layer(layer, app)) for layer in recipe.layers]
        binds = [Bind(source=str(app), target=APP, writable=True)]
        for layer, folder in layers:
            binds.append(Bind(source=str(folder / layer.part), target=layer.mounted_at))
            _make_mount_point(app, layer)
        async with AsyncExitStack() as stack:
            if recipe.target_inputs:
                binds.append(await self._target_cache(stack, app))
            await self._run_all(recipe.steps, staged / "tmp", binds, app)
        command = recipe.command or find_start(app)
        final_app = self.store.artifact_folder(digest) / app.relative_to(staged)
        artifact = Artifact(
            digest=digest,
            language=self.found.language,
            command=command,
            directory=APP,
            mounts=self._mounts(final_app, layers),
            environment=self._runtime_environment(),
            listen=recipe.listen,
        )
        if recipe.steps:
            await asyncio.to_thread(remove_tree, staged / "tmp")
        keys = [folder.parent.name for _, folder in layers]
        await asyncio.to_thread(self.store.write_artifact, staged, artifact, keys)
        self.store.publish(staged, self.store.artifact_folder(digest))
        return artifact

    async def _ensure_layer(self, layer: Layer, app: Path) -> Path:
        """Return the folder of a layer, built now if no other build has left it."""
        inputs = await asyncio.to_thread(_read_inputs, app, layer)
        steps = [(step.argv, step.environment) for step in layer.steps]
        key = digest_of(
            RECIPES_VERSION, self.settings.scope, layer.name, self.versions, steps, inputs
        )
        final = self.store.layers / key
        await self._hold(final)
        async with self.store.lock(f"layer-{key}"):
            if final.is_dir():
                self.log(f"{layer.name} packages: unchanged")
                os.utime(final)
                return final / "content"
            staged = self.store.make_staging(f"layer-{key}")
            try:
                content, source = staged / "content", staged / "source"
                content.mkdir(mode=0o755)
                await asyncio.to_thread(_copy_inputs, app, layer, source)
                binds = [
                    Bind(source=str(content), target=layer.built_at, writable=True),
                    Bind(source=str(source), target=SOURCE, writable=True),
                ]
                await self._run_all(layer.steps, staged / "tmp", binds, None)
                await asyncio.to_thread(remove_tree, staged / "tmp")
                await asyncio.to_thread(remove_tree, source)
                _require_folder(content / layer.part, layer.name)
                await asyncio.to_thread(self.store.write_layer, staged)
                self.store.publish(staged, final)
            finally:
                if staged.exists():
                    await asyncio.to_thread(remove_tree, staged)
        return final / "content"

    async def _target_cache(self, stack: AsyncExitStack, app: Path) -> Bind:
        """Return the compile cache of these dependencies, for this build alone until it ends."""
        inputs = self.found.recipe.target_inputs
        texts = [_read_if_there(app / name) for name in inputs]
        key = digest_of(self.settings.scope, self.versions, texts)[:32]
        await stack.enter_async_context(self.store.lock(f"target-{key}"))
        folder = self.store.caches / self.settings.scope / f"target-{key}"
        await self._hold(folder.parent)
        _ensure_folders(folder)
        return Bind(source=str(folder), target=f"{CACHE}/target", writable=True)

    async def _run_all(
        self, steps: Sequence[Step], tmp: Path, binds: Sequence[Bind], app: Path | None
    ) -> None:
        if not steps:
            return
        caches = self.store.caches / self.settings.scope
        await self._hold(caches)
        _ensure_folders(tmp / "home", caches)
        # The steps change what is below: its size has to be found out again.
        os.utime(caches)
        fixed = [
            *(_own_files(tmp) if self.settings.enclosed else ()),
            Bind(source=str(tmp), target="/tmp", writable=True),  # noqa: S108
            Bind(source=str(caches), target=CACHE, writable=True),
            *(
                Bind(source=mount.source, target=mount.target)
                for tool in self.toolchains.values()
                for mount in tool.mounts
            ),
        ]
        everything = [*fixed, *binds, *_scratch(tmp, binds)]
        for step in steps:
            self.log(f"{step.label} …")
            await self._run_one(step, everything, app)

    async def _run_one(self, step: Step, binds: Sequence[Bind], app: Path | None) -> None:
        environment = self._step_environment(step)
        if self.settings.enclosed:
            readable = readable_paths(environment)
            binds = [*binds, *(Bind(source=p, target=p) for p in readable if _is_hidden(p))]
            argv = sandbox_argv(self.settings.bwrap, self.machine, binds, step.directory, step.argv)
            directory = "/"
        else:
            environment = {n: relocate(v, binds) for n, v in environment.items()}
            argv = [relocate(word, binds) for word in step.argv]
            directory = relocate(step.directory, binds)
        with _Stand(binds, app, needed=self.settings.isolation is Isolation.NONE):
            command = Command(argv=argv, environment=environment, directory=directory, binds=binds)
            await self.confinement.run(step.label, command)

    def _step_environment(self, step: Step) -> dict[str, str]:
        recipe = self.found.recipe
        tools = [pair for tool in self.toolchains.values() for pair in tool.environment]
        given = build_environment(self.settings.environment)
        path = self._path([tool.name for tool in self.toolchains.values()])
        own = {**tool_environment(), **dict(tools)}
        if step.directory == APP:
            # What the program will see counts for its own steps, not for installing packages.
            own.update(dict(recipe.environment))
        if step.label == "run the build script":
            own.pop("NODE_ENV", None)
        wanted = {**given, **own, **dict(step.environment), "PATH": path}
        if not self.settings.enclosed:
            return wanted
        return enclosed_environment(wanted, PROXY, {rule.host for rule in self.reach.named})

    def _runtime_environment(self) -> tuple[tuple[str, str], ...]:
        recipe = self.found.recipe
        merged: dict[str, str] = {"LANG": "C.UTF-8"}
        for name in recipe.runs_on:
            merged.update(self.toolchains[name].environment)
        merged.update(dict(recipe.environment))
        merged.pop("UV_PYTHON", None)
        merged["PATH"] = self._path(recipe.runs_on)
        return tuple(sorted(merged.items()))

    def _path(self, names: Sequence[str]) -> str:
        tools = [folder for name in names for folder in self.toolchains[name].path]
        return ":".join(dict.fromkeys((*self.found.recipe.path, *tools, *BASE_PATH)))

    def _mounts(self, app: Path, layers: Sequence[tuple[Layer, Path]]) -> tuple[Mount, ...]:
        tools = [
            mount for name in self.found.recipe.runs_on for mount in self.toolchains[name].mounts
        ]
        dependencies = [
            Mount(source=str(folder / layer.part), target=layer.mounted_at)
            for layer, folder in layers
        ]
        return (Mount(source=str(app), target=APP), *dependencies, *tools)


class _Stand:
    """Without a sandbox, lets a link stand where a layer would be mounted inside the source."""

    def __init__(self, binds: Sequence[Bind], app: Path | None, *, needed: bool) -> None:
        inner = [bind for bind in binds if bind.target.startswith(f"{APP}/")]
        tops = [bind for bind in inner if bind.target.count("/") == 2]
        self._links = (
            [(app / bind.target.removeprefix(f"{APP}/"), bind.source) for bind in tops]
            if needed and app is not None
            else []
        )

    def __enter__(self) -> None:
        for place, source in self._links:
            place.rmdir()
            place.symlink_to(source)

    def __exit__(self, *reason: object) -> None:
        for place, _ in self._links:
            place.unlink()
            place.mkdir()


def _choose_root(unpacked: Path, root: str) -> Path:
    parts = [part for part in root.split("/") if part not in {"", "."}]
    chosen = unpacked.joinpath(*parts)
    # A link in the upload points nowhere outside, but it could still be a file's.
    if root.startswith("/") or ".." in parts or chosen.is_symlink() or not chosen.is_dir():
        raise InvalidRequest(f"`build.root` {root!r} is no folder of the source", path="build.root")
    return chosen


def _own_files(tmp: Path) -> list[Bind]:
    """Write what a step in a sandbox finds in place of this machine's own."""
    _ensure_folders(tmp / "etc", tmp / "home/.m2")
    (tmp / "home/.m2/settings.xml").write_text(MAVEN_SETTINGS.format(port=PROXY_PORT))
    for name, text in USERS:
        (tmp / "etc" / name).write_text(text)
    return [Bind(source=str(tmp / "etc" / name), target=f"/etc/{name}") for name, _ in USERS]


def _make_mount_point(app: Path, layer: Layer) -> None:
    if layer.target.startswith(f"{APP}/"):
        place = app / layer.target.removeprefix(f"{APP}/")
        if place.is_symlink() or place.exists():
            remove_tree(place)
        place.mkdir(parents=True)


def _require_folder(path: Path, name: str) -> None:
    # A package's script could leave a link, and a runtime would mount what it leads to.
    if path.is_symlink() or not path.is_dir():
        raise BuildFailed(f"installing the {name} packages left no folder {path.name!r}")


def _scratch(tmp: Path, binds: Sequence[Bind]) -> list[Bind]:
    found: list[Bind] = []
    for bind in binds:
        for name in SCRATCH:
            folder, _, inner = name.partition("/")
            if bind.target == f"{APP}/{folder}" and (Path(bind.source) / inner).is_dir():
                own = tmp / "scratch" / inner
                own.mkdir(parents=True, exist_ok=True)
                target = f"{bind.target}/{inner}"
                found.append(Bind(source=str(own), target=target, writable=True))
    return found


def _read_inputs(app: Path, layer: Layer) -> list[tuple[str, str]]:
    if layer.inputs == (EVERYTHING,):
        names = sorted(p.relative_to(app).as_posix() for p in app.rglob("*") if not p.is_dir())
    else:
        names = sorted(layer.inputs)
    return [(name, _hash_entry(app / name)) for name in names]


def _copy_inputs(app: Path, layer: Layer, target: Path) -> None:
    if layer.inputs == (EVERYTHING,):
        shutil.copytree(app, target, symlinks=True)
        return
    target.mkdir()
    for name in layer.inputs:
        if (app / name).is_symlink():
            raise InvalidRequest(f"{name} is a link; put the file itself there", path=name)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(app / name, target / name)


def _hash_entry(path: Path) -> str:
    return f"link {path.readlink()}" if path.is_symlink() else _hash_file(path)


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _ensure_folders(*folders: Path) -> None:
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)


def _read_reach(settings: BuildSettings) -> Reach:
    if not settings.enclosed:
        return Reach(bounds=settings.bounds())
    texts = [_read_if_there(Path(each).resolve()) for each in CONFIGURATION]
    return make_reach(build_environment(settings.environment), texts, settings.bounds())


def _read_if_there(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return ""
    return path.read_text("utf-8", errors="replace")


def _is_hidden(path: str) -> bool:
    return Path(path).exists() and not path.startswith(("/usr/", "/etc/ssl/"))
