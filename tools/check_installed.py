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

PAGES = (
    *("simulate", "assemble", "verify", "mosaic", "replay", "info", "show", "camera", "bench"),
    *("serve", "forward", "status", "watch", "doctor", "keys", "catchup", "archive", "header", "telemetry"),
    *("up", "control", "config", "image", "audit", "repair", "night-report", "ledger", "events"),
    *("endpoint", "rucio", "oods", "mirror"),
)
EXTRA = ("raftwright.lib", "raftwright.picture", "raftwright.ledger.migrations", "raftwright.ledger.schema")
"""Libraries that lie beside the modules are none; drawing, and defining tables, need extras."""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One call of the command line beside this interpreter."""
    program = str(Path(sys.executable).with_name("raftwright"))
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=300, check=False)


def run(*arguments: str) -> str:
    """What a call that must succeed printed."""
    done = command(*arguments)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def main() -> None:
    """Imports every module, then takes one small image all the way."""
    import raftwright
    import raftwright.errors

    assert importlib.metadata.version("raftwright") == raftwright.__version__
    for extra in ("PIL", "fitsio", "pytest", "sqlalchemy", "psycopg", "confluent_kafka", "boto3", "lsst"):
        assert importlib.util.find_spec(extra) is None, (
            f"{extra} is here: this is no environment without extras"
        )
    found = [module.name for module in pkgutil.walk_packages(raftwright.__path__, "raftwright.")]
    modules = [name for name in found if not name.startswith(EXTRA)]
    wanting = []
    for module in modules:
        try:
            import_module(module)
        except raftwright.errors.MissingExtraError as error:  # any other error is one
            wanting.append((module, str(error)))

    from raftwright.transfer.place import Place
    from raftwright.transfer.sender import sender_of

    for kind, root in (("s3", "s3://bucket"), ("webdav", "https://example.org/x")):
        try:
            sender_of(Place(name="far", kind=kind, root=root))
        except raftwright.errors.MissingExtraError as error:
            said = str(error)
        else:
            said = "nothing"
        assert f"raftwright[{kind}]" in said, f"a way to {root} without the extra that it needs says {said}"

    build = json.loads(run("info", "--build", "--json"))["build"]
    for page in PAGES:
        assert page in run(page, "--help")
    with tempfile.TemporaryDirectory() as folder:
        run("simulate", "--camera", "MiniCam", "--out", f"{folder}/recordings")
        (recording,) = [path.parent for path in Path(folder, "recordings").rglob("image.json")]
        run("assemble", str(recording), "--out", f"{folder}/raws")
        raws = sorted(str(path) for path in Path(folder, "raws").rglob("*.fits"))
        assert raws
        run("verify", *raws, "--against", str(recording))
        archive = f"{folder}/archive"
        small = ("archive.root=" + archive, "simulator.size=64x64", "simulator.readout=0.5 s")
        run("up", *(word for setting in small for word in ("--set", setting)), "--images", "1")
        assert json.loads(run("status", archive, "--json"))["night"]["complete"] == 1
        run("audit", archive, "--digests")
        drawn = command("show", str(recording), "--out", f"{folder}/picture.png")
        assert drawn.returncode != 0, "a picture without the extra that draws it?"
        assert "raftwright[show]" in drawn.stderr, drawn.stderr
    print(f"{len(modules) - len(wanting)} modules import, an image and a site go through, without any extra")
    assert all("pip install" in said for _, said in wanting), wanting
    print(f"modules that name the extra that they need: {', '.join(name for name, _ in wanting) or 'none'}")
    print("core: " + ", ".join(f"{key} {value}" for key, value in build.items()))


if __name__ == "__main__":
    main()
