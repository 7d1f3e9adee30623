"""Numbers as people read them: bytes, pixels, seconds, rates."""

from __future__ import annotations

__all__ = ["count", "percent", "pixel_rate", "pixels", "rate", "seconds", "size"]

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def _scaled(value: float, unit: str) -> str:
    for step, prefix in _STEPS:
        if value >= step * 0.9995:
            scaled = value / step
            digits = 0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2
            return f"{scaled:.{digits}f} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def size(octets: float) -> str:
    """Bytes: `382 MB`, `57.6 kB`, `12 B` (powers of ten, as disks and networks count)."""
    return _scaled(octets, "B")


def pixels(number: float) -> str:
    """Pixels: `170 Mpixel`."""
    return _scaled(number, "pixel")


def rate(octets: float, duration: float) -> str:
    """Bytes a second."""
    return f"{size(octets / max(duration, 1e-9))}/s"


def pixel_rate(number: float, duration: float) -> str:
    """Pixels a second, in gigapixels where that says something."""
    value = number / max(duration, 1e-9)
    return f"{value / 1e9:.2f} Gpixel/s" if value >= 9.95e7 else f"{pixels(value)}/s"


def seconds(duration: float) -> str:
    """`0.42 s`, `12.3 s`, `2 min 03 s`."""
    if duration < 9.995:
        return f"{duration:.2f} s"
    if duration < 119.95:
        return f"{duration:.1f} s"
    whole = round(duration)
    return f"{whole // 60} min {whole % 60:02d} s"


def percent(part: float, whole: float) -> str:
    """A share, never rounded to nothing or to all of it."""
    if whole <= 0 or part <= 0:
        return "0 %"
    if part >= whole:
        return "100 %"
    share = 100.0 * part / whole
    if share < 0.01:
        return "< 0.01 %"
    return "> 99.99 %" if share > 99.99 else f"{share:.3g} %"


def count(number: int, singular: str, plural: str | None = None) -> str:
    """`1 file`, `9 files`; thousands apart."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
