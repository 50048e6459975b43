"""What the benchmarks print and count, without running one."""

import pytest
from bench.__main__ import NAMES, find
from bench.envoys import make_static_proxy
from bench.inference_vs_litellm import make_body
from bench.load import is_complete, make_request
from bench.report import Ratio, Report, Side, percentile, render


def test_a_report_names_both_sides_with_versions_and_one_ratio_line() -> None:
    report = Report(
        name="x",
        sides=[
            Side(name="ours", version="1.0", values={"p50 ms": 1.5}),
            Side(name="theirs", version="2.0", values={"p50 ms": 3.0}),
        ],
        ratios=[
            Ratio(what="speed", rounds=(1.9, 2.0, 9.0), goal="≥ 2"),
            Ratio(what="added p50", rounds=(0.5,), unit="ms"),
        ],
    )
    lines = render(report).splitlines()
    assert "p50 1.5 ms" in lines[1]
    assert "(2.0)" in lines[2]
    assert [line for line in lines if "ratio: " in line] == [
        "  ratio: 2  (speed; 1.9 to 9 over 3 rounds; goal ≥ 2)"
    ]
    assert "  added p50: 0.5 ms  (one measurement)" in lines


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (51.0, 100.0)
    assert percentile([7.0], 0.99) == 7.0


@pytest.mark.parametrize(
    ("data", "complete"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-le", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nxy", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: y\r\n\r\nxy", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", True),
    ],
)
def test_an_answer_is_complete_or_waited_for(data: bytes, complete: bool) -> None:
    assert is_complete(data) is complete


def test_any_answer_but_200_fails_the_benchmark() -> None:
    with pytest.raises(RuntimeError, match="503"):
        is_complete(b"HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n")


def test_requests_are_what_they_say() -> None:
    body = make_body()
    assert len(body) == 1024
    request = make_request("a.b.localhost", "/v1/x", body=body)
    assert request.startswith(b"POST /v1/x HTTP/1.1\r\nhost: a.b.localhost\r\n")
    assert request.endswith(b"content-length: 1024\r\n\r\n" + body)


def test_the_peer_has_a_virtual_host_and_a_cluster_per_service() -> None:
    config = make_static_proxy(1, ["a", "b"], "/socket", None)["static_resources"]
    assert [cluster["name"] for cluster in config["clusters"]] == ["a", "b"]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_can_be_found(name: str) -> None:
    assert callable(find(name))
