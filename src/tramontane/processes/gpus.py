"""Which GPUs this machine has, by NVIDIA's own library: for its cell and ``tram doctor``.

The library is ``nvidia-ml-py``, an optional extra; without it, or without a driver, there are no
GPUs, and the finding says what is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tramontane.domain.cell import EvidenceLevel, Fact
from tramontane.wire.quantities import format_bytes

LIBRARY = "pynvml"
EXTRA = "nvidia"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One device."""

    name: str
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What there is, and how that is known; or why nothing is."""

    gpus: tuple[Gpu, ...]
    detail: str
    source: str = ""


def find_gpus(load: Callable[[], Any] = lambda: import_module(LIBRARY)) -> Finding:
    """Ask the library; ``load`` returns it, as a module with the functions of NVML."""
    try:
        nvml = load()
    except ImportError:
        missing = f"none looked for: install the extra with: pip install 'tramontane[{EXTRA}]'"
        return Finding(gpus=(), detail=missing)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return Finding(gpus=(), detail=f"none: {error}; a GPU needs NVIDIA's driver")
    try:
        return _read(nvml)
    except nvml.NVMLError as error:
        return Finding(gpus=(), detail=f"none that can be used: {error}")
    finally:
        nvml.nvmlShutdown()


def facts_of(finding: Finding, now: float) -> tuple[Fact, ...]:
    """Return what was found as facts of the machine's cell: measured, since nobody claimed them."""
    return tuple(
        Fact(
            attribute="gpu",
            value=_describe(gpu),
            evidence=EvidenceLevel.MEASURED,
            source=finding.source,
            recorded_at=now,
        )
        for gpu in finding.gpus
    )


def _read(nvml: Any) -> Finding:
    gpus: list[Gpu] = []
    for number in range(nvml.nvmlDeviceGetCount()):
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        memory = nvml.nvmlDeviceGetMemoryInfo(device).total
        gpus.append(Gpu(name=_text(nvml.nvmlDeviceGetName(device)), memory_bytes=memory))
    return Finding(
        gpus=tuple(gpus),
        detail=", ".join(_describe(each) for each in gpus) or "none: the driver knows of no GPU",
        source=f"NVML of driver {_text(nvml.nvmlSystemGetDriverVersion())}",
    )


def _text(value: str | bytes) -> str:
    """Return a name: older versions of the library give bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _describe(gpu: Gpu) -> str:
    return f"{gpu.name}, {format_bytes(gpu.memory_bytes)}"
