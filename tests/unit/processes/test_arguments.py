"""What a control plane is started with is refused before anything is touched."""

import pytest

from tramontane.base.errors import InvalidRequest
from tramontane.processes.arguments import Address, parse_control_arguments


def test_addresses_are_read() -> None:
    found = parse_control_arguments(["--gateway", "[::1]:80", "--api", "0.0.0.0:81"])
    assert found.gateway == Address(host="::1", port=80)
    assert found.api == Address(host="0.0.0.0", port=81)


def test_the_gateway_and_the_api_need_an_address_each() -> None:
    with pytest.raises(InvalidRequest, match=r"are both 127\.0\.0\.1:81"):
        parse_control_arguments(["--gateway", "127.0.0.1:81", "--api", "127.0.0.1:81"])


def test_what_an_hour_costs_is_an_amount() -> None:
    assert parse_control_arguments(["--hourly-cost", "0.12"]).hourly_cost == "0.12"
    assert parse_control_arguments([]).hourly_cost is None
    with pytest.raises(InvalidRequest, match="--hourly-cost 1e-99: expected an amount in euro"):
        parse_control_arguments(["--hourly-cost", "1e-99"])
