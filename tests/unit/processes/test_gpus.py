"""GPUs as NVML tells of them: the library's answers are values here."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from tramontane.domain.cell import EvidenceLevel
from tramontane.processes.gpus import Gpu, facts_of, find_gpus


class NvmlError(Exception):
    pass


@dataclass
class Library:
    """What ``pynvml`` would answer."""

    devices: list[tuple[str | bytes, int]] = field(default_factory=list)
    init_fails: str = ""
    memory_fails: str = ""
    open: int = 0

    NVMLError = NvmlError

    def nvmlInit(self) -> None:  # noqa: N802 - the library's names
        if self.init_fails:
            raise NvmlError(self.init_fails)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        return number

    def nvmlDeviceGetName(self, device: int) -> str | bytes:  # noqa: N802
        return self.devices[device][0]

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:  # noqa: N802
        if self.memory_fails:
            raise NvmlError(self.memory_fails)
        return SimpleNamespace(total=self.devices[device][1])

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.1"


def test_devices_become_facts_that_were_measured() -> None:
    library = Library([("NVIDIA H100 80GB HBM3", 80 * 1024**3), (b"NVIDIA L4", 24 * 1024**3)])
    finding = find_gpus(lambda: library)
    assert finding.gpus == (
        Gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=80 * 1024**3),
        Gpu(name="NVIDIA L4", memory_bytes=24 * 1024**3),
    )
    assert finding.detail == "NVIDIA H100 80GB HBM3, 80 GiB, NVIDIA L4, 24 GiB"
    first, second = facts_of(finding, now=7.0)
    assert (first.attribute, first.value) == ("gpu", "NVIDIA H100 80GB HBM3, 80 GiB")
    assert (first.evidence, first.source) == (EvidenceLevel.MEASURED, "NVML of driver 570.1")
    assert second.recorded_at == 7.0
    assert library.open == 0


def test_what_is_missing_is_named() -> None:
    def absent() -> Any:
        raise ModuleNotFoundError("No module named 'pynvml'")

    finding = find_gpus(absent)
    assert (finding.gpus, facts_of(finding, now=0.0)) == ((), ())
    assert "pip install 'tramontane[nvidia]'" in finding.detail
    undriven = find_gpus(lambda: Library(init_fails="NVML Shared Library Not Found"))
    assert undriven.detail.startswith("none: NVML Shared Library Not Found; a GPU needs")
    assert find_gpus(Library).detail == "none: the driver knows of no GPU"


def test_a_device_that_cannot_be_read_counts_for_nothing() -> None:
    library = Library([("NVIDIA L4", 1)], memory_fails="GPU is lost")
    finding = find_gpus(lambda: library)
    assert (finding.gpus, finding.detail) == ((), "none that can be used: GPU is lost")
    assert library.open == 0
