"""The fixture that every test of the command line starts from."""

from pathlib import Path

import pytest

from tests.unit.cli.fake import Tram


@pytest.fixture
def tram(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Tram:
    """A ``tram`` whose platform is running."""
    made = Tram(tmp_path / "home", capsys)
    made.write_home()
    return made
