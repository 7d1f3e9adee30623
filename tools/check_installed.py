"""Run by the interpreter of a fresh environment: does the installed package work without any extra?"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import pkgutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

PAGES = ("simulate", "assemble", "verify", "mosaic", "replay", "info", "show", "camera", "bench")


def run(*arguments: str) -> str:
    """Output of the command line beside this interpreter."""
    command = [str(Path(sys.executable).with_name("raftwright")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (
        f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    )
    return done.stdout


def main() -> None:
    """Imports every module, then takes one small image all the way."""
    import raftwright

    assert importlib.metadata.version("raftwright") == raftwright.__version__
    for extra in ("PIL", "fitsio", "pytest"):
        assert importlib.util.find_spec(extra) is None, (
            f"{extra} is here: this is no environment without extras"
        )
    modules = [module.name for module in pkgutil.walk_packages(raftwright.__path__, "raftwright.")]
    for module in modules:
        import_module(module)

    build = json.loads(run("info", "--build", "--json"))
    for page in PAGES:
        assert page in run(page, "--help")
    with tempfile.TemporaryDirectory() as folder:
        run("simulate", "--camera", "MiniCam", "--out", f"{folder}/recordings")
        (recording,) = [path.parent for path in Path(folder, "recordings").rglob("image.json")]
        run("assemble", str(recording), "--out", f"{folder}/raws")
        raws = sorted(str(path) for path in Path(folder, "raws").rglob("*.fits"))
        assert raws
        run("verify", *raws, "--against", str(recording))
    print(f"{len(modules)} modules import, an image goes through, without any extra; core: {build}")


if __name__ == "__main__":
    main()
