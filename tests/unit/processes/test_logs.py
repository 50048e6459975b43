"""``tram logs`` reads files that are written, rotated and cut off while it looks."""

import json
from pathlib import Path
from typing import Any

from tramontane.domain.ids import ServiceId
from tramontane.processes.logs import LogFiles, LogSource
from tramontane.wire.schemas import LogLine

SERVICE = ServiceId("svc_1")


def write(path: Path, *texts: str, at: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for text in texts:
            file.write(json.dumps({"at": at, "stream": "stdout", "text": text}) + "\n")


async def read(files: LogFiles, *sources: LogSource, **more: Any) -> list[LogLine]:
    return [line async for line in files.read(SERVICE, sources, **more)]


def make_files(tmp_path: Path) -> LogFiles:
    return LogFiles(logs=tmp_path / "logs", egress=tmp_path / "egress.log", follow_s=0.0)


async def test_lines_of_all_files_come_in_the_order_of_time(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    write(files.logs / SERVICE / "ins_b.log", "second", at=2)
    write(files.logs / SERVICE / "ins_a.log.1", "first", at=1)
    write(files.logs / SERVICE / "dep_1.build.log", "zeroth", at=0)
    lines = await read(files)
    assert [(line.source, line.instance, line.text) for line in lines] == [
        ("build", None, "zeroth"),
        ("runtime", "ins_a", "first"),
        ("runtime", "ins_b", "second"),
    ]
    assert [line.text for line in await read(files, tail=1)] == ["second"]
    assert [line.text for line in await read(files, "build")] == ["zeroth"]
    assert [line.text for line in await read(files, since=1.5)] == ["second"]


async def test_half_a_line_of_a_killed_process_is_passed_over(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    write(files.logs / SERVICE / "ins_a.log", "whole")
    with (files.logs / SERVICE / "ins_a.log").open("a") as file:
        file.write('{"at": 2, "te')
    assert [line.text for line in await read(files)] == ["whole"]


async def test_following_goes_on_across_a_rotation_without_repeating(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    log = files.logs / SERVICE / "ins_a.log"
    write(log, "one", at=1)
    following = files.read(SERVICE, (), follow=True)
    assert (await anext(following)).text == "one"
    write(log, "two", at=2)
    assert (await anext(following)).text == "two"
    log.rename(log.with_name("ins_a.log.1"))
    write(log, "three", at=3)
    assert (await anext(following)).text == "three"
    write(log, "four", at=4)
    assert (await anext(following)).text == "four"


async def test_egress_shows_this_services_lines_only(tmp_path: Path) -> None:
    files = make_files(tmp_path)
    entries = [
        {"service_id": SERVICE, "host": "a.test:443", "verdict": "denied", "method": "CONNECT"},
        {"service_id": "svc_2", "host": "b.test:443", "verdict": "denied", "method": "CONNECT"},
        {"service_id": SERVICE, "host": "c.test:443", "verdict": "allowed", "method": "CONNECT"},
    ]
    lines = [{"at": "2026-11-23T20:00:00.000Z", **entry} for entry in entries]
    files.egress.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = await read(files, "egress")
    assert [line.text.split(":")[0] for line in found] == [
        "denied CONNECT a.test",
        "allowed CONNECT c.test",
    ]
