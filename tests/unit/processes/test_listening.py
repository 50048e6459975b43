"""Who has a port that is taken is told as far as the kernel tells it, with the way out."""

import errno
import shlex
from ipaddress import ip_address
from pathlib import Path

import pytest

from tramontane.base.errors import Conflict, InvalidRequest
from tramontane.processes.arguments import Address
from tramontane.processes.layout import make_layout, open_layout
from tramontane.processes.listening import (
    Holder,
    Listener,
    explain,
    find_home,
    held_by,
    read_listeners,
)

ADDRESS = Address(host="127.0.0.1", port=8080)
TAKEN = OSError(errno.EADDRINUSE, "Address already in use")
LISTENERS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7001 1 0
   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 7002 1 0
   2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7003 1 0
"""
LISTENERS_6 = """\
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 7
"""


def test_only_what_listens_is_read() -> None:
    assert read_listeners(LISTENERS) == [
        Listener(address=ip_address("127.0.0.1"), port=8080, inode="7001"),
        Listener(address=ip_address("0.0.0.0"), port=8081, inode="7003"),
    ]
    (found,) = read_listeners(LISTENERS_6)
    assert (found.address, found.port, found.inode) == (ip_address("::1"), 8080, "7")


@pytest.mark.parametrize(
    ("address", "holds"),
    [("127.0.0.1", True), ("0.0.0.0", True), ("::", True), ("127.0.0.2", False), ("::1", False)],
)
def test_an_address_is_held_by_itself_and_by_every_address(address: str, holds: bool) -> None:
    listener = Listener(address=ip_address(address), port=8080, inode="7")
    assert held_by(listener, ADDRESS) is holds
    assert not held_by(listener, Address(host="127.0.0.1", port=8081))
    assert held_by(listener, Address(host="0.0.0.0", port=8080)), "all addresses, this one too"


def test_processes_of_a_platform_are_known_by_their_command_line(tmp_path: Path) -> None:
    layout = open_layout(tmp_path / "home")
    control = ["python", "-m", "tramontane.processes.control", "--home", str(layout.home)]
    envoy = ["/bin/envoy", "--config-path", str(layout.gateway / "envoy.json"), "--concurrency"]
    assert find_home(control) is None, "a home without a lock had no platform yet"
    layout.lock.touch()
    assert find_home(control) == layout.home
    assert find_home(envoy) == layout.home
    assert find_home(["/bin/envoy", "--config-path", "envoy.json"]) is None
    assert find_home(["python", "-m", "http.server", "--home"]) is None
    assert find_home([]) is None


def test_another_platform_is_named_with_how_to_stop_it() -> None:
    home = make_layout(Path("/srv/two words")).home
    holder = Holder(pid=812, name="envoy", home=home)
    error = explain(TAKEN, ADDRESS, "--gateway", holder)
    assert isinstance(error, Conflict)
    assert error.message == (
        "port 8080 is taken: 127.0.0.1:8080, wanted for the gateway, is held by the platform of "
        "TRAM_HOME /srv/two words (process 812)"
    )
    assert error.next_step == (
        "choose another with --gateway HOST:PORT, or stop that platform: "
        f"TRAM_HOME={shlex.quote(str(home))} tram down"
    )


def test_a_stranger_is_named_and_an_unknown_one_is_not_made_up() -> None:
    error = explain(TAKEN, ADDRESS, "--api", Holder(pid=5, name="nginx", home=None))
    assert error.message.endswith("wanted for the API, is held by nginx (process 5)")
    assert error.next_step == "choose another with --api HOST:PORT"
    error = explain(TAKEN, ADDRESS, "--api", None)
    assert error.message.endswith("is held by a process that this user may not see")


def test_an_address_that_cannot_be_had_is_bad_input() -> None:
    refused = OSError(errno.EACCES, "Permission denied")
    error = explain(refused, Address(host="::1", port=80), "--gateway", None)
    assert isinstance(error, InvalidRequest)
    assert error.message == "cannot listen on [::1]:80 for the gateway: Permission denied"
    assert error.path == "--gateway"
    assert error.next_step == "choose another with --gateway HOST:PORT"
