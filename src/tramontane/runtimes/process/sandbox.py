"""What a sandbox looks like from inside, as bubblewrap arguments: pure, held by golden tests.

``launching`` runs the result. The namespaces that are not unshared here, network and in rootless
mode an outer user namespace, are those of the supervisor, which made them before; see
``docs/decisions/0003-process-sandbox.md``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from tramontane.base.errors import InvalidRequest
from tramontane.domain.artifact import Artifact, Listen
from tramontane.domain.definition import URL_VARIABLE
from tramontane.runtimes.runtime import InstanceSpec

APP_PORT = 8080
"""``$PORT``; each sandbox has its own loopback, so it can be the same everywhere."""
EGRESS_PORT = 3128
MODELS_PORT = 3129
"""Where the models answer that the service is bound to."""
APP_DIRECTORY = "/run/tram"
APP_SOCKET = f"{APP_DIRECTORY}/app.sock"
HOME = "/home/app"
SANDBOX_UID = 1000

TMPFS_DIRECTORIES = ("/tmp", HOME, "/dev/shm")  # noqa: S108 - the sandbox's own
_TMPFS_BYTES_MIN = 16 * 1024**2
_TMPFS_BYTES_MAX = 1024**3

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RESERVED_TARGETS = ("/", "/proc", "/dev", "/etc", APP_DIRECTORY)

FD_STATUS = 3
FD_ARGUMENTS = 4
FD_FILTER = 5
FD_FILES = 6
"""First of the descriptors that hold the generated files."""
FILES_COUNT = 6


@dataclass(frozen=True, kw_only=True)
class HostTree:
    """The parts of the host's file system that every sandbox shows, read-only."""

    binds: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    """(path, where it points)"""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """All that starting a sandbox needs; descriptors are numbered as ``FD_*`` says."""

    arguments: tuple[str, ...]
    """For ``--args``: they hold the environment, so they never appear in argv."""
    command: tuple[str, ...]
    files: tuple[bytes, ...]


def make_sandbox(
    spec: InstanceSpec, tree: HostTree, *, visible: Mapping[str, str], app_directory: str | None
) -> Sandbox:
    """Return the sandbox of one instance.

    ``visible`` says where the source of a mount can be reached if not at its own path;
    ``app_directory`` is the host's directory for the program's socket, if it makes one.
    """
    files = generated_files(spec)
    assert len(files) == FILES_COUNT
    arguments = [
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts"),
        *("--unshare-cgroup-try", "--die-with-parent", "--new-session"),
        *("--cap-drop", "ALL", "--disable-userns"),
        *("--uid", str(SANDBOX_UID), "--gid", str(SANDBOX_UID)),
        *("--hostname", hostname(spec.label)),
        *("--json-status-fd", str(FD_STATUS), "--seccomp", str(FD_FILTER)),
    ]
    for path in tree.binds:
        arguments += ["--ro-bind", path, path]
    for path, target in tree.links:
        arguments += ["--symlink", target, path]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for path in TMPFS_DIRECTORIES:
        arguments += ["--perms", "1777" if path != HOME else "0700"]
        arguments += ["--size", str(tmpfs_bytes(spec)), "--tmpfs", path]
    for number, (path, _) in enumerate(files):
        arguments += ["--perms", "0644", "--file", str(FD_FILES + number), path]
    for mount in sorted(spec.artifact.mounts, key=lambda mount: mount.target.count("/")):
        arguments += ["--ro-bind", visible.get(mount.source, mount.source), mount.target]
    if app_directory is not None:
        arguments += ["--bind", visible.get(app_directory, app_directory), APP_DIRECTORY]
    # The program owns the tmpfs that hold / and /dev, and could fill them without a limit.
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/"]
    arguments += ["--chdir", spec.artifact.directory]
    for name, value in make_environment(spec, port=APP_PORT, socket=APP_SOCKET):
        arguments += ["--setenv", name, value]
    return Sandbox(
        arguments=tuple(arguments),
        command=spec.command,
        files=tuple(content for _, content in files),
    )


def make_environment(spec: InstanceSpec, *, port: int, socket: str) -> tuple[tuple[str, str], ...]:
    """Return the program's environment: ours, the artifact's, the user's; what it needs last."""
    environment = {
        "PATH": _PATH,
        "HOME": HOME,
        "USER": "app",
        "LOGNAME": "app",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108
    }
    if spec.egress_socket is not None:
        proxy = f"http://127.0.0.1:{EGRESS_PORT}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            environment[name] = proxy
        for name in ("NO_PROXY", "no_proxy"):
            environment[name] = "localhost,127.0.0.1,::1"
    environment.update(spec.artifact.environment)
    environment.update(spec.environment)
    if spec.models_socket is not None:
        environment[URL_VARIABLE] = f"http://127.0.0.1:{MODELS_PORT}/v1"
    environment["TRAM_INSTANCE"] = spec.id
    match spec.listen:
        case Listen.UNIX:
            environment["TRAM_SOCKET"] = socket
        case Listen.TCP:
            environment["PORT"] = str(port)
        case None:
            pass
    return tuple(environment.items())


def generated_files(spec: InstanceSpec) -> tuple[tuple[str, bytes], ...]:
    """Return the files of ``/etc`` that are made for each sandbox: nothing of the host's users."""
    name = hostname(spec.label)
    texts = (
        (
            "/etc/passwd",
            f"root:x:0:0:root:/:/usr/sbin/nologin\napp:x:{SANDBOX_UID}:{SANDBOX_UID}:app:{HOME}:"
            "/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        ),
        ("/etc/group", f"root:x:0:\napp:x:{SANDBOX_UID}:\nnogroup:x:65534:\n"),
        ("/etc/hosts", f"127.0.0.1 localhost {name}\n::1 localhost ip6-localhost\n"),
        ("/etc/hostname", f"{name}\n"),
        # No resolver: names are resolved by the egress proxy. Options keep lookups from hanging.
        ("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
    )
    return tuple((path, text.encode()) for path, text in texts)


def tmpfs_bytes(spec: InstanceSpec) -> int:
    """Return the size of each writable directory, which counts as the instance's memory."""
    return max(_TMPFS_BYTES_MIN, min(spec.resources.memory_bytes // 2, _TMPFS_BYTES_MAX))


def hostname(label: str) -> str:
    """Return the label as a host name: ``shop/web#2`` becomes ``shop-web-2``."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:63].strip("-") or "instance"


def check_artifact(artifact: Artifact) -> None:
    """Raise ``InvalidRequest`` for mounts that would break the sandbox open or apart."""
    for number, mount in enumerate(artifact.mounts):
        target = PurePosixPath(mount.target)
        taken = any(str(target) == path for path in _RESERVED_TARGETS) or any(
            target.is_relative_to(path) for path in ("/proc", "/dev", APP_DIRECTORY)
        )
        if not target.is_absolute() or ".." in target.parts or taken:
            raise InvalidRequest(
                f"mount target {mount.target!r} cannot be used inside the sandbox; "
                "choose an absolute path such as /app",
                path=f"artifact.mounts[{number}].target",
            )
        if not PurePosixPath(mount.source).is_absolute():
            raise InvalidRequest(
                f"mount source {mount.source!r} is no absolute path",
                path=f"artifact.mounts[{number}].source",
            )


def without_sandbox(text: str, artifact: Artifact) -> str:
    """Return ``text`` with paths inside the sandbox replaced by the host's, for isolation none.

    Handles a path, and lists of paths joined by ``:`` such as ``PATH``.
    """
    parts: list[str] = []
    for part in text.split(":"):
        translated = part
        for mount in sorted(artifact.mounts, key=lambda mount: -len(mount.target)):
            if part == mount.target or part.startswith(mount.target.rstrip("/") + "/"):
                translated = mount.source + part[len(mount.target.rstrip("/")) :]
                break
        parts.append(translated)
    return ":".join(parts)
