"""``tram down`` takes away what a platform made outside its home, and nothing that is in use."""

from pathlib import Path

import pytest

from tramontane.base.errors import Unsupported
from tramontane.processes.down import stop_platform
from tramontane.processes.layout import Layout, make_layout, open_layout, open_run, remove_run


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A platform that was killed: its files are there, and nothing runs."""
    open_layout(tmp_path / "home")
    layout = Layout(home=tmp_path / "home", run=tmp_path / "run")
    open_run(layout)
    (layout.run / "svc_1.out").touch()
    (layout.run / "ins_1").mkdir()
    (layout.run / "ins_1" / "control.sock").touch()
    return layout


async def test_the_sockets_of_a_dead_platform_go(layout: Layout) -> None:
    assert await stop_platform(layout) == []
    assert not layout.run.exists()
    assert layout.instances.exists()
    assert await stop_platform(layout) == [], "it may be said twice"


def test_a_platform_that_was_started_meanwhile_keeps_its_sockets(layout: Layout) -> None:
    lock = layout.hold()
    assert lock is not None
    remove_run(layout)
    assert (layout.run / "svc_1.out").exists()
    lock.close()
    remove_run(layout)
    assert not layout.run.exists()


def test_who_only_removes_is_never_taken_for_a_control_plane(layout: Layout) -> None:
    layout.lock.write_text("4242\n")  # of a process long gone
    with layout.hold() or pytest.fail("nobody has it"):
        assert layout.lock_holder() is None


def test_every_process_finds_the_same_directory(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert open_layout(home) == make_layout(home)
    assert not make_layout(home).run.exists(), "made under the lock only"


def test_a_directory_that_is_open_to_others_is_refused(layout: Layout) -> None:
    layout.run.chmod(0o755)
    with pytest.raises(Unsupported, match="open to others"):
        open_run(layout)
