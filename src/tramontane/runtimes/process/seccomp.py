"""The system calls that sandboxed programs may not use, as a seccomp program in bytes.

Why a list of what is refused and not of what is allowed: programs of any language run here, and
an allow-list breaks them with each new libc. The sandbox does not rest on this filter; it takes
away parts of the kernel in which holes have been found and which no app server needs.

``sandbox`` hands the program to bubblewrap, ``entering`` loads it for commands run by ``execute``.
Written without libseccomp so that nothing has to be installed.
"""

import errno
import platform
import socket
import struct
from dataclasses import dataclass

from tramontane.runtimes.process.syscalls import AARCH64, DENIED, MISSING, X86_64

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER_EQUAL = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_JUMP_BITS = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]
_OFFSET_NUMBER = 0
_OFFSET_ARCH = 4

_X32_BIT = 0x40000000

# CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
NAMESPACE_FLAGS = 0x7E020000

_TERMINAL_REQUESTS = (
    0x5412,  # TIOCSTI: types into the terminal of another program
    0x541C,  # TIOCLINUX: pastes into a console
)

# What docker allows too: the default, 32 bit, and two that change only what uname says.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

_NETLINK_ROUTE = 0
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)


@dataclass(frozen=True)
class Architecture:
    """Numbers that differ between machines."""

    audit: int
    numbers: dict[str, int]
    has_x32: bool


ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, X86_64, has_x32=True),
    "aarch64": Architecture(0xC00000B7, AARCH64, has_x32=False),
}


def machine_filter() -> bytes:
    """Return the filter for the machine this runs on; empty where the machine is not known."""
    architecture = ARCHITECTURES.get(platform.machine())
    return make_filter(architecture) if architecture is not None else b""


def make_filter(architecture: Architecture) -> bytes:
    """Return the whole filter as an array of ``struct sock_filter``."""
    numbers = architecture.numbers
    code = [_instruction(_LOAD, k=_OFFSET_ARCH)]
    code += _unless_equal(architecture.audit, _KILL_PROCESS)
    code.append(_instruction(_LOAD, k=_OFFSET_NUMBER))
    if architecture.has_x32:
        # Another table of numbers for the same calls, which would walk around every rule below.
        code.append(_instruction(_JUMP_GREATER_EQUAL, jump_false=1, k=_X32_BIT))
        code.append(_instruction(_RETURN, k=_ERRNO | errno.ENOSYS))
    for names, code_returned in ((DENIED, errno.EPERM), (MISSING, errno.ENOSYS)):
        for name in names:
            if name in numbers:
                code += _if_equal(numbers[name], _ERRNO | code_returned)
    code += _rule_clone(numbers["clone"])
    code += _rule_ioctl(numbers["ioctl"])
    code += _rule_personality(numbers["personality"])
    code += _rule_socket(numbers["socket"])
    code.append(_instruction(_RETURN, k=_ALLOW))
    return b"".join(code)


def _instruction(operation: int, *, jump_true: int = 0, jump_false: int = 0, k: int) -> bytes:
    return struct.pack("=HBBI", operation, jump_true, jump_false, k)


def _argument(index: int) -> bytes:
    """Load the low half of an argument; the checked ones are 32 bits wide in the kernel."""
    return _instruction(_LOAD, k=16 + 8 * index)


def _if_equal(value: int, result: int) -> list[bytes]:
    return [
        _instruction(_JUMP_EQUAL, jump_false=1, k=value),
        _instruction(_RETURN, k=result),
    ]


def _unless_equal(value: int, result: int) -> list[bytes]:
    return [
        _instruction(_JUMP_EQUAL, jump_true=1, k=value),
        _instruction(_RETURN, k=result),
    ]


def _for_call(number: int, body: list[bytes]) -> list[bytes]:
    """Run ``body`` for one call only; the body always returns, so the number stays loaded."""
    return [_instruction(_JUMP_EQUAL, jump_false=len(body), k=number), *body]


def _rule_clone(number: int) -> list[bytes]:
    body = [
        _argument(0),
        _instruction(_JUMP_BITS, jump_false=1, k=NAMESPACE_FLAGS),
        _instruction(_RETURN, k=_ERRNO | errno.EPERM),
        _instruction(_RETURN, k=_ALLOW),
    ]
    return _for_call(number, body)


def _rule_ioctl(number: int) -> list[bytes]:
    body = [_argument(1)]
    for request in _TERMINAL_REQUESTS:
        body += _if_equal(request, _ERRNO | errno.EPERM)
    body.append(_instruction(_RETURN, k=_ALLOW))
    return _for_call(number, body)


def _rule_personality(number: int) -> list[bytes]:
    body = [_argument(0)]
    for personality in _PERSONALITIES:
        body += _if_equal(personality, _ALLOW)
    body.append(_instruction(_RETURN, k=_ERRNO | errno.EPERM))
    return _for_call(number, body)


def _rule_socket(number: int) -> list[bytes]:
    """Allow the families that stay inside the network namespace.

    AF_VSOCK, for one, does not: it reaches the hypervisor from any namespace. AF_NETLINK is
    allowed for routes only, which is how programs list their network interfaces.
    """
    body = [_argument(0)]
    for family in _FAMILIES:
        body += _if_equal(family, _ALLOW)
    body += [
        _instruction(_JUMP_EQUAL, jump_false=3, k=socket.AF_NETLINK),
        _argument(2),
        *_if_equal(_NETLINK_ROUTE, _ALLOW),
        _instruction(_RETURN, k=_ERRNO | errno.EAFNOSUPPORT),
    ]
    return _for_call(number, body)
