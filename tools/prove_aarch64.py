"""Run the kernels' tests as on a 64-bit ARM machine: `python -m tools.prove_aarch64 --work FOLDER`.

The C kernels are cross-compiled and the tests interpreted by qemu, with Debian's Python for that
machine and wheels for it. torch is the last version whose wheel for it needs no CUDA libraries; the
kernels don't link to it. Needs debootstrap, gcc-aarch64-linux-gnu and qemu-user-static. An hour on
one core; `--tests` takes less.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

_CONTEXT = Path(__file__).resolve().parents[1]
# pip judges what a package needs by this machine, so what these need is named, too.
_WHEELS = (
    *("torch==2.8.*", "numpy==2.*", "typing_extensions", "filelock", "fsspec", "networkx"),
    *("sympy==1.14.*", "mpmath==1.*", "jinja2", "markupsafe"),
    *("pytest==9.*", "pluggy", "iniconfig", "packaging", "pygments"),
    *("pytest-asyncio", "pytest-timeout", "hypothesis", "sortedcontainers"),
)
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "any")
_LIBRARIES = ("libgomp1", "libstdc++6")
_TESTS = ("linear", "elementwise", "embedding", "paged_attention")
_COMPILE = ("-std=gnu11", "-O3", "-g0", "-fopenmp", "-Wall", "-Wno-psabi", "-shared", "-fPIC")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for what it needs")
    parser.add_argument(
        "--tests", nargs="*", default=[f"tests/kernels/test_{name}.py" for name in _TESTS]
    )
    asked = parser.parse_args()
    work = asked.work.resolve()
    _make_root(work / "root")
    _get_wheels(work / "site")
    _build(work / "tree")
    command = (
        *("qemu-aarch64-static", "-L", str(work / "root")),
        *_variable("PYTHONHOME", str(work / "root/usr")),
        *_variable("PYTHONPATH", f"{work / 'site'}:{work / 'tree'}"),
        *_variable("LD_LIBRARY_PATH", f"/usr/lib/aarch64-linux-gnu:{work / 'site/torch.libs'}"),
        str(work / "root/usr/bin/python3.11"),
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", "."),
        *asked.tests,
    )
    return subprocess.run(command, cwd=work / "tree", check=False).returncode


def _make_root(root: Path) -> None:
    """Unpack Debian's Python for the other machine; nothing of it runs before the tests do."""
    if (root / "usr/bin/python3.11").exists():
        return
    packages = ",".join(("python3", *_LIBRARIES))
    _run("debootstrap", "--foreign", "--arch=arm64", f"--include={packages}", "bookworm", str(root))
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        _run("dpkg", "-x", str(package), str(root))
    for folder in root.iterdir():  # qemu would see these in place of this machine's
        if folder.name not in {"usr", "lib", "bin"}:
            shutil.rmtree(folder)


def _get_wheels(site: Path) -> None:
    if (site / "torch").exists():
        return
    wheels = site.parent / "wheels"
    platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
    target = ("--python-version", "3.11", "--implementation", "cp", "--no-deps")
    _run(
        *(
            sys.executable,
            "-m",
            "pip",
            "--quiet",
            "download",
            "--only-binary=:all:",
            "--dest",
            str(wheels),
        ),
        *(*platforms, *target, *_WHEELS),
    )
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def _build(tree: Path) -> None:
    """Copy the package and cross-compile its kernels."""
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("tgi_cli", "tests", "tools"):
        shutil.copytree(
            _CONTEXT / name, tree / name, ignore=shutil.ignore_patterns("*.so", "__pycache__")
        )
    kernels = tree / "tgi_cli/kernels"
    sources = sorted(str(source) for source in kernels.glob("*/*.c"))
    library = str(kernels / "native/_native.so")
    _run("aarch64-linux-gnu-gcc", *_COMPILE, "-o", library, *sources, "-lm")


def _variable(name: str, value: str) -> tuple[str, str]:
    return "-E", f"{name}={value}"


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


if __name__ == "__main__":
    sys.exit(main())
