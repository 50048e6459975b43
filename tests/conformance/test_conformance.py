"""Every runtime keeps the promises of ``Runtime``, the fake included."""

import os
import pwd
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.beds import FakeBed, ProcessBed
from tramontane.runtimes.process.protocol import Isolation
from tramontane.testing.conformance import CHECKS, Bed, Check

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["fake", *Isolation])
async def any_bed(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Bed]:
    made = FakeBed() if request.param == "fake" else ProcessBed(directory, Isolation(request.param))
    yield made
    await made.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_promise_is_kept(any_bed: Bed, check: Check) -> None:
    await check(any_bed)


def test_the_suite_passes_as_an_ordinary_user(directory: Path) -> None:
    """Root tests the rootless way too, if there is a user and a Python that user can run."""
    if os.geteuid() != 0:
        pytest.skip("not root: all other tests of this file ran as an ordinary user already")
    user = _find_user()
    if user is None:
        pytest.skip("no ordinary user (uid 1000 to 59999) on this machine")
    python = f"/usr/bin/python3.{sys.version_info.minor}"
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{paths}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(directory),
        "TMPDIR": "/tmp",
    }
    os.chown(directory, user.pw_uid, user.pw_gid)
    trial = _run_as(user, [python, "-c", "import pytest, uvloop, tramontane.base"], environment)
    if trial.returncode != 0:
        pytest.skip(f"user {user.pw_name} cannot run these tests: {trial.stdout[-300:]}")
    suites = [str(ROOT / "tests" / name) for name in ("conformance", "escape")]
    result = _run_as(
        user,
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *suites],
        environment,
    )
    assert result.returncode == 0, result.stdout[-6000:]


def _find_user() -> pwd.struct_passwd | None:
    return next((user for user in pwd.getpwall() if 1000 <= user.pw_uid < 60000), None)


def _run_as(
    user: pwd.struct_passwd, command: list[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        env=environment,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        check=False,
    )
