"""Sizes as people read them: in messages of every layer."""


def format_bytes(size: float) -> str:
    """Return a size as people read it: ``512 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:g} {unit}" if size == int(size) else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
