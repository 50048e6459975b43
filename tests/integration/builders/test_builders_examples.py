"""Every example builds with the real tools, starts, answers, and is not built a second time."""

import asyncio
import json
import shutil
import time
from pathlib import Path

import pytest

from tests.integration.builders.running import EXAMPLES, Bench, run
from tramontane.base.errors import Unsupported
from tramontane.builders.garbage import BuildStorage
from tramontane.domain.artifact import Artifact
from tramontane.domain.definition import BuildOptions
from tramontane.domain.inventory import Item, ItemKind

LANGUAGES = ["python", "node", "go", "rust", "java", "procfile"]
MAIN = {
    "python": ("main.py", "#"),
    "node": ("server.js", "//"),
    "go": ("main.go", "//"),
    "rust": ("src/main.rs", "//"),
    "java": ("src/main/java/hello/Main.java", "//"),
    "procfile": ("server.pl", "#"),
}


async def build_or_skip(bench: Bench, directory: Path) -> Artifact:
    try:
        return await bench.build(directory)
    except Unsupported as error:
        pytest.skip(f"a toolchain is missing: {error.message}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_example_builds_runs_and_is_cached(
    bench: Bench, tmp_path: Path, language: str
) -> None:
    example = EXAMPLES / f"hello-{language}"
    artifact = await build_or_skip(bench, example)
    assert artifact.language == language
    with run(artifact, GREETING="Salut") as running:
        answer = running.fetch("/")
        assert answer.status == 200
        assert json.loads(answer.body)["message"] == "Salut, world!"

    started = time.monotonic()
    assert await bench.build(example) == artifact
    assert bench.lines[-1] == "nothing changed since it was built"
    assert time.monotonic() - started < 5

    edited = tmp_path / f"edited-{language}"
    shutil.copytree(example, edited)
    file, mark = MAIN[language]
    text = (edited / file).read_text().replace("world", "again")
    (edited / file).write_text(f"{text}\n{mark} edited\n")
    bench.lines.clear()
    changed = await bench.build(edited)
    assert changed.digest != artifact.digest
    assert not any("install" in line for line in bench.lines)
    with run(changed) as running:
        assert "again" in running.fetch("/").body
    assert bench.leftovers() == []


def is_whole(artifact: Artifact) -> bool:
    return all(Path(mount.source).exists() for mount in artifact.mounts)


async def test_garbage_collection_leaves_a_build_alone_until_it_is_recorded(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    storage = BuildStorage(bench.settings.root)
    example = EXAMPLES / "hello-python"
    await build_or_skip(bench, example)

    def removable() -> list[Item]:
        kinds = (ItemKind.ARTIFACT, ItemKind.LAYER, ItemKind.CACHE)
        items = [each for kind in kinds for each in storage.list_items() if each.kind is kind]
        assert {each.kind for each in items} == set(kinds)
        return [each for each in items if storage.remove(each, lambda: True)]

    edited = tmp_path / "edited"
    shutil.copytree(example, edited)
    (edited / "main.py").write_text(f"{(example / 'main.py').read_text()}\n# edited\n")
    async with bench.building(bench.pack(edited), BuildOptions()) as artifact:
        # It compiled, with the layer and the caches that the first build had left.
        taken = await asyncio.to_thread(removable)
        assert [each.kind for each in taken] == [ItemKind.ARTIFACT], "the first one's"
        assert taken[0].name != artifact.digest
        assert is_whole(artifact)
    taken = await asyncio.to_thread(removable)
    assert {each.kind for each in taken} == {ItemKind.ARTIFACT, ItemKind.LAYER, ItemKind.CACHE}
    assert (await bench.build(edited)).digest == artifact.digest
    assert is_whole(artifact)
    assert bench.leftovers() == []


async def test_static_files_are_served_as_browsers_expect(bench: Bench) -> None:
    artifact = await bench.build(EXAMPLES / "hello-static")
    (Path(artifact.mounts[0].source).parent / "secret").write_text("secret")
    with run(artifact) as running:
        front = running.fetch("/")
        assert front.status == 200
        assert front.headers["content-type"].startswith("text/html")
        etag = front.headers["etag"]
        assert etag
        assert running.fetch("/", {"if-none-match": etag}).status == 304
        assert running.fetch("/style.css").headers["content-type"].startswith("text/css")
        missing = running.fetch("/missing")
        assert (missing.status, "nothing here" in missing.body) == (404, True)
        for path in ("/../secret", "/%2e%2e/secret", "//etc/passwd", "/..%2fsecret", "/.tram"):
            answer = running.fetch(path)
            assert answer.status == 404
            assert "root:" not in answer.body
    (Path(artifact.mounts[0].source).parent / "secret").unlink()
