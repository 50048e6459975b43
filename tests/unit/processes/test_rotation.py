"""Logs stay within bounds and lose only their oldest lines."""

from pathlib import Path

from tramontane.processes.rotation import rotate


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    assert not rotate(log, bytes_max=10), "there is none yet"
    log.write_text("short")
    assert not rotate(log, bytes_max=10)
    assert log.read_text() == "short"


def test_the_oldest_goes_when_a_new_one_comes(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    for number in range(5):
        log.write_text(f"number {number}, long enough")
        assert rotate(log, bytes_max=10, kept=2)
    assert not log.exists()
    assert (tmp_path / "access.log.1").read_text().startswith("number 4")
    assert (tmp_path / "access.log.2").read_text().startswith("number 3")
    assert not (tmp_path / "access.log.3").exists()
