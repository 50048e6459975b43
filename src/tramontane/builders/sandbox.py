"""The command that runs one build step apart from the machine; pure functions.

Inside a bubblewrap sandbox a step is nobody on this machine, with no more system calls than an
instance has, and sees: the machine's tools (``/usr`` and the linker's folders)
and a few files of ``/etc``, read-only; the toolchains and layers of its recipe, read-only; the
source, its own ``/tmp`` and the caches of its scope, writable. It does not see the home folders,
the platform's state or other processes. Its network is the empty one that it is started in
(``confinement``), where a proxy leads to what builds may reach (``reach``): a build can send away
the source it was given, and nothing else of the platform.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ETC = (
    *("alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "gai.conf"),
    *("host.conf", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime"),
    *("maven", "mime.types", "nsswitch.conf", "pip.conf", "pki", "protocols"),
    *("resolv.conf", "services", "ssl", "npmrc"),
)
USER_ID = 1000
USERS = (
    (
        "passwd",
        f"build:x:{USER_ID}:{USER_ID}:build:/tmp/home:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    ("group", f"build:x:{USER_ID}:\nnogroup:x:65534:\n"),
)
"""Files of ``/etc`` that say who a step is: many tools ask, and none needs this machine's users."""

SECCOMP_FD = 5
"""Where the filter of system calls is: as ``runtimes.process.confining`` has it."""

SHARED_MEMORY_BYTES = 256 * 1024**2
TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A file or folder of the machine at a place inside the sandbox."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What of the machine's own root a sandbox shows."""

    links: tuple[tuple[str, str], ...]
    """(destination, link), as ``/bin`` → ``usr/bin``."""
    folders: tuple[str, ...]


def look_at_machine(root: Path = Path("/")) -> Machine:
    """Find out how this machine's root is laid out; the one function here that reads."""
    links: list[tuple[str, str]] = []
    folders = [str(root / "usr")]
    for name in TOP:
        path = root / name
        if path.is_symlink():
            links.append((str(path.readlink()), str(path)))
        elif path.is_dir():
            folders.append(str(path))
    folders.extend(str(root / "etc" / name) for name in ETC if (root / "etc" / name).exists())
    return Machine(links=tuple(links), folders=tuple(folders))


def sandbox_argv(
    bwrap: str, machine: Machine, binds: Sequence[Bind], directory: str, argv: Sequence[str]
) -> list[str]:
    """Return the command that runs ``argv`` in a bubblewrap sandbox with these binds."""
    command = [
        bwrap,
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--unshare-cgroup-try", "--disable-userns", "--cap-drop", "ALL"),
        *("--uid", str(USER_ID), "--gid", str(USER_ID), "--hostname", "build"),
        *("--seccomp", str(SECCOMP_FD), "--die-with-parent", "--new-session"),
    ]
    for destination, link in machine.links:
        command += ["--symlink", destination, link]
    for folder in machine.folders:
        command += ["--ro-bind", folder, folder]
    command += ["--proc", "/proc", "--dev", "/dev"]
    size = str(SHARED_MEMORY_BYTES)
    command += ["--perms", "1777", "--size", size, "--tmpfs", "/dev/shm"]  # noqa: S108
    # Outer folders first: a later bind covers what an earlier one shows below its target.
    for bind in sorted(binds, key=lambda bind: len(PurePosixPath(bind.target).parts)):
        command += ["--bind" if bind.writable else "--ro-bind", bind.source, bind.target]
    # What is not a bind is memory that nobody counts.
    command += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [*command, "--chdir", directory, "--", *argv]


def relocate(text: str, binds: Sequence[Bind]) -> str:
    """Replace the sandbox's paths in a text by the machine's: for steps without a sandbox."""
    sources = {bind.target: bind.source for bind in binds if bind.target != bind.source}
    if not sources:
        return text
    targets = "|".join(re.escape(t) for t in sorted(sources, key=len, reverse=True))
    pattern = rf"(?<![\w./-])({targets})(?=$|[/\s:;'\"])"
    return re.sub(pattern, lambda match: sources[match.group(1)], text)
