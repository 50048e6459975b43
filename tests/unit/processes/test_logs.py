"""``tram logs`` reads files that are written, rotated and cut off while it looks."""

import json
from pathlib import Path
from typing import Any

from tramontane.domain.ids import ServiceId
from tramontane.processes.logs import LogFiles, LogSource, LogStorage, LogWriter
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
    found = await read_egress(
        files,
        {"host": "a.test:443", "verdict": "denied", "why": "not under egress:"},
        {"service_id": "svc_2", "host": "b.test:443", "verdict": "denied"},
        {"host": "c.test:443", "verdict": "allowed", "reason": "via_upstream", "code": 500},
        {"host": "d.test:443", "verdict": "allowed", "reason": "remote_close", "code": 200},
    )
    assert found == [
        ("stderr", "denied CONNECT a.test:443: not under egress:"),
        ("stdout", "allowed CONNECT c.test:443"),
        ("stdout", "allowed CONNECT d.test:443"),
    ]


async def test_egress_that_was_allowed_and_came_to_nothing_says_why(tmp_path: Path) -> None:
    private = "it leads to an address of this machine or of a private network"
    reset = "upstream_reset_before_response_started{connection_refused}"
    found = await read_egress(
        make_files(tmp_path),
        {"host": "a", "verdict": "allowed", "reason": "dns_cache{address_denied}"},
        {"host": "b", "verdict": "allowed", "reason": "dns_resolution_failure{x}"},
        {"host": "c", "verdict": "allowed", "reason": reset, "code": 503},
        {"method": "", "reason": "http1.codec_error"},
    )
    assert found == [
        (
            "stderr",
            f"denied CONNECT a: {private}",
        ),
        ("stderr", "failed CONNECT b: the name has no address"),
        ("stderr", f"failed CONNECT c: {reset}"),
        ("stderr", "failed: http1.codec_error"),
    ]


async def read_egress(files: LogFiles, *entries: dict[str, str | int]) -> list[tuple[str, str]]:
    usual = {"at": "2026-11-23T20:00:00.000Z", "service_id": SERVICE, "method": "CONNECT"}
    files.egress.write_text("".join(json.dumps(usual | entry) + "\n" for entry in entries))
    return [(line.stream, line.text) for line in await read(files, "egress")]


def test_logs_are_listed_and_removed_with_their_folder_last(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write(logs / SERVICE / "ins_a.log", "said")
    storage = LogStorage(logs)
    folder, file = sorted(storage.list_items(), key=lambda each: each.name)
    assert (folder.name, file.name) == ("svc_1", "svc_1/ins_a.log")
    assert file.size_bytes > 0
    assert file.used_at == (logs / file.name).stat().st_mtime
    assert not storage.remove(folder, lambda: True), "something is in it"
    assert not storage.remove(file, lambda: False)
    assert storage.remove(file, lambda: True)
    assert storage.remove(folder, lambda: True)
    assert not storage.remove(file, lambda: True)
    assert storage.list_items() == []


def test_a_build_that_outlives_its_service_goes_on_without_a_log(tmp_path: Path) -> None:
    path = tmp_path / "logs" / SERVICE / "dep_1.build.log"
    writer = LogWriter(path)
    writer.write("kept", at=1.0)
    path.unlink()
    path.parent.rmdir()
    writer.write("nobody can ask for this", at=2.0)
    assert not path.exists()
