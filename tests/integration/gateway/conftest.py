from collections.abc import AsyncIterator

import pytest

from tests.integration.gateway.bed import Bed, make_bed


@pytest.fixture
async def bed() -> AsyncIterator[Bed]:
    """A gateway and an Envoy with nothing published, for one test alone."""
    async with make_bed() as bed:
        await bed.start()
        yield bed
