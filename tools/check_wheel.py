"""Checks a wheel and a source archive: check_wheel.py WHEEL SDIST."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path


def check_wheel(path: Path) -> list[str]:
    """What is wrong with the wheel, one sentence each."""
    problems = []
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    for wanted in (
        "__init__.py",
        "py.typed",
        "_core.pyi",
        "_stream.pyi",
        "libraftwright_core.so",
        "cli/__init__.py",
    ):
        if f"raftwright/{wanted}" not in names:
            problems.append(f"{path.name} lacks raftwright/{wanted}")
    for module in ("_core", "_stream"):
        if not any(name.startswith(f"raftwright/{module}.") and name.endswith(".so") for name in names):
            problems.append(f"{path.name} lacks the compiled raftwright/{module}")
    if sum(name.startswith("raftwright/camera/") and name.endswith(".yaml") for name in names) < 4:
        problems.append(f"{path.name} lacks camera descriptions")
    for wanted in ("licenses/LICENSE", "licenses/NOTICE"):
        if not any(name.endswith(wanted) for name in names):
            problems.append(f"{path.name} lacks {wanted}")
    outside = [n for n in names if not n.startswith("raftwright/") and ".dist-info/" not in n]
    if outside:
        problems.append(f"{path.name} would install outside its package: {outside[:3]}")
    if "fitsio" in "".join(
        line for line in text.splitlines() if "Requires-Dist" in line and "extra" not in line
    ):
        problems.append(f"{path.name} requires fitsio, which is GPL")
    return problems


def check_source_archive(path: Path) -> list[str]:
    """What is wrong with the source archive, one sentence each."""
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    wanted = ("CMakeLists.txt", "LICENSE", "NOTICE", "README.md", "cpp/CMakeLists.txt", "src/CMakeLists.txt")
    problems = [f"{path.name} lacks {name}" for name in wanted if name not in names]
    strays = [name for name in names if name.startswith(("build/", ".venv/", "dist/"))]
    if strays:
        problems.append(f"{path.name} holds build products: {strays[:3]}")
    return problems


def main() -> int:
    """Prints what is wrong; 0 when nothing is."""
    problems = []
    for argument in sys.argv[1:]:
        path = Path(argument)
        problems += check_wheel(path) if path.suffix == ".whl" else check_source_archive(path)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("wheel and source archive hold what they should")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
