"""The seccomp program, run by a small interpreter of the kernel's instructions."""

import errno
import struct

import pytest

from tramontane.runtimes.process.seccomp import ARCHITECTURES, make_filter

ALLOW = 0x7FFF0000
KILL = 0x80000000
INSTRUCTIONS_MAX = 4096  # BPF_MAXINSNS


def run(program: bytes, number: int, *arguments: int, arch: int) -> int:
    data = struct.pack("=iIQ6Q", number, arch, 0, *(*arguments, *[0] * (6 - len(arguments))))
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator = position = 0
    while True:
        operation, jump_true, jump_false, k = code[position]
        position += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x15:
                position += jump_true if accumulator == k else jump_false
            case 0x35:
                position += jump_true if accumulator >= k else jump_false
            case 0x45:
                position += jump_true if accumulator & k else jump_false
            case 0x06:
                return k
            case other:
                raise AssertionError(f"unknown instruction {other:#x}")


def refused(code: int) -> int:
    return 0x00050000 | code


@pytest.fixture(params=ARCHITECTURES)
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def ask(machine: str, name: str, *arguments: int) -> int:
    architecture = ARCHITECTURES[machine]
    number = architecture.numbers[name]
    return run(make_filter(architecture), number, *arguments, arch=architecture.audit)


def test_it_fits_the_kernel(machine: str) -> None:
    program = make_filter(ARCHITECTURES[machine])
    assert len(program) % 8 == 0
    assert len(program) // 8 <= INSTRUCTIONS_MAX


@pytest.mark.parametrize("number", [0, 1, 3, 63, 64, 202, 257])
def test_ordinary_calls_are_allowed(machine: str, number: int) -> None:
    architecture = ARCHITECTURES[machine]
    if number not in architecture.numbers.values():
        assert run(make_filter(architecture), number, arch=architecture.audit) == ALLOW


@pytest.mark.parametrize(
    "name",
    [
        "ptrace",
        "mount",
        "unshare",
        "setns",
        "bpf",
        "keyctl",
        "open_by_handle_at",
        "chroot",
        "reboot",
    ],
)
def test_dangerous_calls_are_refused(machine: str, name: str) -> None:
    assert ask(machine, name) == refused(errno.EPERM)


@pytest.mark.parametrize("name", ["clone3", "io_uring_setup"])
def test_what_has_an_older_way_looks_missing(machine: str, name: str) -> None:
    assert ask(machine, name) == refused(errno.ENOSYS)


def test_clone_makes_threads_but_no_namespaces(machine: str) -> None:
    threads = 0x3D0F00
    assert ask(machine, "clone", threads) == ALLOW
    assert ask(machine, "clone", 17) == ALLOW
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(machine, "clone", bit | 17) == refused(errno.EPERM)


def test_terminals_cannot_be_typed_into(machine: str) -> None:
    assert ask(machine, "ioctl", 0, 0x5401) == ALLOW
    assert ask(machine, "ioctl", 0, 0x5412) == refused(errno.EPERM)
    # The kernel looks at 32 bits of the request, so the filter must not be fooled by the rest.
    assert ask(machine, "ioctl", 0, 0x1_0000_5412) == refused(errno.EPERM)


def test_sockets_stay_in_the_network_namespace(machine: str) -> None:
    for family in (1, 2, 10):
        assert ask(machine, "socket", family, 1, 0) == ALLOW
    assert ask(machine, "socket", 16, 3, 0) == ALLOW
    for netlink_protocol in (2, 9, 12, 16):
        assert ask(machine, "socket", 16, 3, netlink_protocol) == refused(errno.EAFNOSUPPORT)
    for family in (17, 31, 38, 40, 44):
        assert ask(machine, "socket", family, 1, 0) == refused(errno.EAFNOSUPPORT)


def test_personalities_that_weaken_programs_are_refused(machine: str) -> None:
    assert ask(machine, "personality", 0xFFFFFFFF) == ALLOW
    assert ask(machine, "personality", 0x0040000) == refused(errno.EPERM)


def test_other_tables_of_calls_are_closed() -> None:
    x86 = ARCHITECTURES["x86_64"]
    program = make_filter(x86)
    assert run(program, 0, arch=0x40000003) == KILL
    assert run(program, 0x40000000 | x86.numbers["ptrace"], arch=x86.audit) == refused(errno.ENOSYS)
