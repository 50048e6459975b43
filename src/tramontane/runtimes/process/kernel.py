"""The few system calls that Python 3.11 does not offer, each as a typed function.

``launching``, ``supervisor`` and ``entering`` call it to build and to enter sandboxes. Everything
here acts on the calling thread only, which is why the processes that use it have just one.
"""

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 1 << 19

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITIES_MAX = 64

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFF_RUNNING = 0x40

_LIBC = ctypes.CDLL(None, use_errno=True)


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _prctl(option: int, value: int, what: str) -> None:
    unused = ctypes.c_ulong(0)
    _check(_LIBC.prctl(option, ctypes.c_ulong(value), unused, unused, unused), what)


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces."""
    _check(_LIBC.unshare(ctypes.c_int(flags)), "unshare")


def set_namespaces(fd: int, flags: int) -> None:
    """Join the namespaces of a process (``fd`` from ``os.pidfd_open``) that ``flags`` names."""
    _check(_LIBC.setns(ctypes.c_int(fd), ctypes.c_int(flags)), "setns")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """Mount ``source`` on ``target``, as mount(2)."""
    result = _LIBC.mount(
        source.encode(),
        target.encode(),
        kind.encode() if kind is not None else None,
        ctypes.c_ulong(flags),
        data.encode(),
    )
    _check(result, f"mount {source} on {target}")


def die_with_parent(parent_pid: int, signal_number: int) -> None:
    """Have the kernel signal this process when its parent dies; exit if that happened already."""
    _prctl(_PR_SET_PDEATHSIG, signal_number, "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os._exit(1)


def adopt_orphans() -> None:
    """Make descendants whose parents died children of this process instead of init's."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "prctl(PR_SET_CHILD_SUBREAPER)")


def set_dumpable(dumpable: bool) -> None:
    """Allow or refuse others of the same user to look into this process."""
    _prctl(_PR_SET_DUMPABLE, int(dumpable), "prctl(PR_SET_DUMPABLE)")


def set_process_name(name: str) -> None:
    """Set the name that ``ps -o comm`` shows (15 bytes)."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _check(_LIBC.prctl(_PR_SET_NAME, buffer, 0, 0, 0), "prctl(PR_SET_NAME)")


def set_no_new_privileges() -> None:
    """Make setuid programs powerless for this process and all its descendants."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "prctl(PR_SET_NO_NEW_PRIVS)")


def drop_capability_bounds() -> None:
    """Empty the capability bounding set; capabilities themselves go with the next ``exec``."""
    for capability in range(_CAPABILITIES_MAX):
        try:
            _prctl(_PR_CAPBSET_DROP, capability, "prctl(PR_CAPBSET_DROP)")
        except OSError:  # the first number past the kernel's last capability
            return


def install_filter(program: bytes) -> None:
    """Load a seccomp program (``seccomp.make_filter``); needs ``set_no_new_privileges``."""
    filter_program = _FilterProgram(len(program) // 8, program)
    result = _LIBC.prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(filter_program), 0, 0
    )
    _check(result, "prctl(PR_SET_SECCOMP)")


def bring_loopback_up() -> None:
    """Switch on ``lo`` in the network namespace of this process."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sH14s", b"lo", _IFF_UP | _IFF_RUNNING, b"")
        fcntl.ioctl(handle, _SIOCSIFFLAGS, request)
