"""What a build promises when things go wrong, and what its code can see."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.builders.running import Bench, run
from tramontane.base.errors import BuildFailed, InvalidRequest
from tramontane.builders.settings import Isolation
from tramontane.domain.definition import BuildOptions

SLOW = BuildOptions(command="touch half; echo started; sleep 600")
KILLED = """
import asyncio, sys
from pathlib import Path
from tests.integration.builders.running import Bench
from tramontane.domain.definition import BuildOptions
bench = Bench(Path(sys.argv[1]))
class Lines(list):
    def append(self, line): print(line, flush=True)
bench.lines = Lines()
asyncio.run(bench.build(Path(sys.argv[2]), BuildOptions(command=sys.argv[3])))
"""


def site(source: Path, **files: str) -> Path:
    (source / "index.html").write_text("hello")
    for name, text in files.items():
        (source / name).write_text(text)
    return source


@pytest.mark.parametrize(
    ("name", "text", "step", "words"),
    [
        ("main.py", "app = FastAPI(\n", "compile main.py", "SyntaxError"),
        ("requirements.txt", "no such thing==\n", "install Python packages", "no such thing"),
    ],
)
async def test_a_broken_source_fails_in_the_tools_own_words(
    bench: Bench, source: Path, name: str, text: str, step: str, words: str
) -> None:
    (source / "main.py").write_text("print('hello')")
    (source / name).write_text(text)
    with pytest.raises(BuildFailed, match=step) as failure:
        await bench.build(source)
    assert words in (failure.value.detail or "")
    assert bench.leftovers() == []


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_a_build_sees_nothing_of_the_platform(
    tmp_path: Path, source: Path, isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    if bench.isolation is Isolation.NONE and isolation is Isolation.BUBBLEWRAP:
        pytest.skip("this machine allows no sandbox for builds")
    bench.isolation = isolation
    monkeypatch.setenv("TRAM_SECRET", "hidden")
    (tmp_path / "secret").write_text("hidden")
    site(source)
    look = f"env; cat {tmp_path}/secret; ls /root /home; ps ax; echo $HOME; touch made; true"
    artifact = await bench.build(source, BuildOptions(command=look))
    seen = "\n".join(bench.lines)
    assert "TRAM_SECRET" not in seen
    assert (Path(artifact.mounts[0].source) / "made").exists()
    if isolation is Isolation.BUBBLEWRAP:
        assert "hidden" not in seen
        assert "-m pytest" not in seen


async def test_a_cancelled_build_leaves_nothing(tmp_path: Path, source: Path) -> None:
    bench = Bench(tmp_path)
    site(source)
    task = asyncio.ensure_future(bench.build(source, SLOW))
    while "started" not in bench.lines:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.leftovers() == []
    assert not list((tmp_path / "store" / "artifacts").iterdir())


async def test_a_step_that_takes_too_long_is_ended(tmp_path: Path, source: Path) -> None:
    bench = Bench(tmp_path, step_timeout_s=0.5)
    with pytest.raises(BuildFailed, match=r"'run the build command' did not end within 0\.5 s"):
        await bench.build(site(source), SLOW)
    assert bench.leftovers() == []


async def test_the_same_build_twice_at_once_runs_once(tmp_path: Path, source: Path) -> None:
    bench = Bench(tmp_path)
    site(source)
    options = BuildOptions(command="echo worked; sleep 0.3")
    archive = bench.pack(source)
    async with asyncio.TaskGroup() as group:
        builds = [group.create_task(bench.build_archive(archive, options)) for _ in range(4)]
    assert len({task.result() for task in builds}) == 1
    assert bench.lines.count("worked") == 1


def kill_during_build(root: Path, source: Path, command: str, delay_s: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root), str(source), command],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    with process:
        assert process.stdout is not None
        assert any(line.strip() == "started" for line in process.stdout)
        time.sleep(delay_s)
        os.kill(process.pid, signal.SIGKILL)


async def test_a_kill_at_any_point_leaves_nothing_half_done(tmp_path: Path, source: Path) -> None:
    bench = Bench(tmp_path)
    site(source)
    marker = "date > stamp; echo started; sleep 0.5; echo built"
    for delay_s in (0.0, 0.01, 0.1, 0.3):
        await asyncio.to_thread(kill_during_build, tmp_path, source, marker, delay_s)
        assert not list((tmp_path / "store" / "artifacts").iterdir())
    artifact = await bench.build(source, BuildOptions(command=marker))
    assert "built" in bench.lines
    assert bench.leftovers() == []
    with run(artifact) as running:
        assert running.fetch("/").body == "hello"


@pytest.mark.timeout(120)
async def test_a_layer_cannot_be_a_link_out_of_the_store(tmp_path: Path, source: Path) -> None:
    bench = Bench(tmp_path)
    package = {
        "main": "server.js",
        "scripts": {"postinstall": "rm -rf node_modules && ln -s /tmp node_modules"},
        "dependencies": {"is-odd": "3.0.1"},
    }
    (source / "package.json").write_text(json.dumps(package))
    (source / "server.js").write_text("")
    with pytest.raises(BuildFailed, match="left no folder 'node_modules'"):
        await bench.build(source)
    assert bench.leftovers() == []


async def test_a_source_can_be_a_folder_of_the_upload(tmp_path: Path, source: Path) -> None:
    bench = Bench(tmp_path)
    (source / "web").mkdir()
    site(source / "web")
    artifact = await bench.build(source, BuildOptions(root="web"))
    with pytest.raises(InvalidRequest, match="no folder"):
        await bench.build(source, BuildOptions(root="../.."))
    assert artifact.mounts[0].source.endswith("/app/web")
    with run(artifact) as running:
        assert running.fetch("/").body == "hello"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("isolation", list(Isolation))
async def test_a_flask_app_is_served(tmp_path: Path, source: Path, isolation: Isolation) -> None:
    bench = Bench(tmp_path)
    if bench.isolation is Isolation.NONE and isolation is Isolation.BUBBLEWRAP:
        pytest.skip("this machine allows no sandbox for builds")
    bench.isolation = isolation
    (source / "requirements.txt").write_text("flask>=3\n")
    (source / "app.py").write_text(
        "from flask import Flask\napp = Flask(__name__)\n"
        "@app.get('/')\ndef front():\n    return 'hello from flask'\n"
    )
    artifact = await bench.build(source)
    with run(artifact) as running:
        assert running.fetch("/").body == "hello from flask"
