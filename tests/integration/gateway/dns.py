"""A tiny name server: answers A and AAAA questions from a table."""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, table: Mapping[str, Sequence[str]]) -> None:
        self._table = table
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels, at = [], 12
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += size + 1
        question, (kind,) = data[12 : at + 5], struct.unpack("!H", data[at + 1 : at + 3])
        version = {1: 4, 28: 6}.get(kind)
        texts = self._table.get(".".join(labels).lower(), [])
        found = [ip_address(text) for text in texts]
        found = [address for address in found if address.version == version]
        answer = data[:2] + struct.pack("!HHHHH", 0x8180, 1, len(found), 0, 0) + question
        for address in found:
            raw = address.packed
            answer += struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(raw)) + raw
        assert self._transport
        self._transport.sendto(answer, addr)


@asynccontextmanager
async def answer_with(table: Mapping[str, Sequence[str]]) -> AsyncIterator[str]:
    """Serve the table; yield ``address:port``."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _Protocol(table), local_addr=("127.0.0.1", 0)
    )
    try:
        yield "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
    finally:
        transport.close()
