"""What a verification found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

__all__ = ["Finding", "Findings", "VerifiedFile", "VerifyReport"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (`error`) or worth knowing (`warning`): where, what, and what to do."""

    severity: Literal["error", "warning"]
    file: str
    hdu: str
    """`primary`, an EXTNAME, `sidecar`, or empty for the file as a whole."""
    place: str
    """Card, pixel or byte; may be empty."""
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.hdu, self.place) if part)
        return f"{where}: {self.problem}; {self.remedy}"


class Findings:
    """Findings about one file: at most `LIMIT` errors and as many warnings."""

    LIMIT: Final = 100

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: list[Finding] = []

    @property
    def ok(self) -> bool:
        """Whether no error was noted."""
        return all(finding.severity != "error" for finding in self._found)

    def error(self, hdu: str, place: str, problem: str, remedy: str) -> None:
        """Notes something wrong."""
        self._add(Finding("error", self.file, hdu, place, problem, remedy))

    def warning(self, hdu: str, place: str, problem: str, remedy: str) -> None:
        """Notes something worth knowing."""
        self._add(Finding("warning", self.file, hdu, place, problem, remedy))

    def _add(self, finding: Finding) -> None:
        kept = sum(1 for other in self._found if other.severity == finding.severity)
        if kept < self.LIMIT:
            self._found.append(finding)
        elif kept == self.LIMIT:
            self._found.append(
                Finding(
                    finding.severity,
                    self.file,
                    "",
                    "",
                    f"more than {self.LIMIT} of this kind",
                    "mend those first",
                )
            )

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found)


@dataclass(frozen=True)
class VerifiedFile:
    """A file that was looked at."""

    path: Path
    image: str | None
    detector: str | None
    segments: int
    pixels: int
    missing_pixels: int
    compared: int
    """Pixels that were compared with a recording."""
    ok: bool
    """No error was found."""


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found."""

    files: tuple[VerifiedFile, ...]
    findings: tuple[Finding, ...]
    against: str | None = None
    """Name of the image that was compared with."""
    containers: int = 0
    """That were read from end to end."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that say something is wrong."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that are worth knowing."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.errors

    @property
    def missing_pixels(self) -> int:
        """Pixels that the files say did not arrive."""
        return sum(file.missing_pixels for file in self.files)

    @property
    def compared(self) -> int:
        """Pixels that were compared with a recording."""
        return sum(file.compared for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        content = asdict(self)
        for entry, file in zip(content["files"], self.files, strict=True):
            entry["path"] = str(file.path)
        content.update(ok=self.ok, missing_pixels=self.missing_pixels, compared=self.compared)
        return content
