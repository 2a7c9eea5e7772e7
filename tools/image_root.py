"""Carry a Dockerfile's steps out in bare roots, where no container engine runs.

Each stage is an overlay on the one it is built on, as an image's layers are; the lowest is a Debian
made by debootstrap, with Debian's Python, in place of the official image of Python. The caller has
a mount namespace of its own, so every mount ends with it. Needs root, debootstrap and overlayfs.
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.dockerfile import Stage, argument, assignments, expand, mount, options

_STANDS_FOR = "python:3.11.14-slim-bookworm"
_DEBIAN = "bookworm"
_PACKAGES = ("python3.11-venv", "python3-pip")  # the second is what the first needs to be set up
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
_NO_CACHE = 'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'  # as in Debian's images
_OF_THE_KERNEL = ("proc", "dev", "sys")


@dataclass(slots=True)
class Root:
    """A stage that was built: where it is mounted, and what its next step would see."""

    path: Path
    layers: list[Path]  # the lowest first
    variables: dict[str, str]
    user: str = "0"
    folder: str = "/"
    arguments: dict[str, str] = field(default_factory=dict)  # ARG: these steps only

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command line that runs `words` in this root, as its user."""
        pairs = self.variables | self.arguments
        return [
            *("chroot", f"--userspec={self.user}:{self.user}", "--groups=", str(self.path)),
            *("env", "--ignore-environment", f"--chdir={self.folder}"),
            *(f"{name}={value}" for name, value in pairs.items()),
            *words,
        ]

    def num_bytes(self) -> int:
        return sum(size_of(layer) for layer in self.layers)


class ImageRoots:
    """Builds stages, each once. `bound` are paths of this machine that the steps may read."""

    def __init__(
        self,
        stages: list[Stage],
        context: Path,
        work: Path,
        build_args: Mapping[str, str],
        bound: Sequence[Path] = (),
    ) -> None:
        self._stages = {stage.name: stage for stage in stages}
        self._context = context
        self._ignored = _ignored(context / ".dockerignore")
        self._work = work
        self._build_args = build_args
        self._bound = bound
        self._built: dict[str, Root] = {}

    def build(self, name: str) -> Root:
        """Return the stage's root, built with all that it needs.

        Raises:
            subprocess.CalledProcessError: a step failed; its output has been printed.
        """
        if name in self._built:
            return self._built[name]
        stage = self._stages[name]
        below = self.build(stage.parent) if stage.parent in self._stages else self._base(stage)
        layer = self._work / "layers" / (name or "last")
        root = Root(
            self._work / "roots" / (name or "last"),
            [*below.layers, layer],
            dict(below.variables),
            below.user,
            below.folder,
        )
        self._mount(root)
        for each in stage.instructions:
            begun = time.monotonic()
            self._step(root, each.word, each.text)
            print(f"[{name} {time.monotonic() - begun:.1f}s] {each.word} {each.text}", flush=True)
        root.arguments = {}
        for path in self._bound:
            _run("umount", f"{root.path}{path}")
        self._built[name] = root
        return root

    def _step(self, root: Root, word: str, text: str) -> None:
        known = root.variables | root.arguments
        if word == "ARG":
            root.arguments |= argument(text, self._build_args, known)
        elif word == "ENV":
            root.variables |= assignments(text, known)
        elif word == "USER":
            root.user = expand(text, known)
        elif word == "WORKDIR":
            root.folder = expand(text, known)
            Path(f"{root.path}{root.folder}").mkdir(parents=True, exist_ok=True)
        elif word == "RUN":
            self._run_in(root, text)
        elif word == "COPY":
            self._copy(root, expand(text, known))

    def _run_in(self, root: Root, text: str) -> None:
        given, script = options(text)
        target = None
        if "mount" in given:
            bind = mount(given["mount"])
            target = Path(f"{root.path}{bind.target}")
            target.mkdir(parents=True)
            _run("mount", "--bind", f"{self.build(bind.stage).path}{bind.source}", str(target))
        _run(*root.command(["/bin/sh", "-c", script]))
        if target is not None:
            _run("umount", str(target))
            target.rmdir()

    def _copy(self, root: Root, text: str) -> None:
        given, paths = options(text)
        *sources, target = paths.split()
        origin = self.build(given["from"]).path if "from" in given else self._context
        for source in sources:
            path = origin / source.lstrip("/")
            whole = Path(f"{root.path}{target}")
            if path.is_dir():
                ignore = None if "from" in given else self._ignore
                shutil.copytree(path, whole, symlinks=True, ignore=ignore, dirs_exist_ok=True)
            else:
                whole = whole / path.name if target.endswith("/") else whole
                whole.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, whole)
                if "chmod" in given:
                    whole.chmod(int(given["chmod"], 8))

    def _ignore(self, folder: str, names: list[str]) -> set[str]:
        return {name for name in names for each in self._ignored if fnmatch.fnmatch(name, each)}

    def _mount(self, root: Root) -> None:
        scratch = self._work / "scratch" / root.path.name
        for folder in (root.layers[-1], scratch):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (root.layers[-1], scratch, root.path):
            folder.mkdir(parents=True, exist_ok=True)
        below = ":".join(str(layer) for layer in reversed(root.layers[:-1]))
        layers = f"lowerdir={below},upperdir={root.layers[-1]},workdir={scratch}"
        _run("mount", "-t", "overlay", "overlay", "-o", layers, str(root.path))
        for name in _OF_THE_KERNEL:
            _run("mount", "--rbind", f"/{name}", str(root.path / name))
        for path in self._bound:
            inside = Path(f"{root.path}{path}")
            inside.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                inside.mkdir(exist_ok=True)
            else:
                inside.touch()
            _run("mount", "--bind", str(path), str(inside))

    def _base(self, stage: Stage) -> Root:
        if stage.parent != _STANDS_FOR:
            raise ValueError(f"stage {stage.name!r} is built on {stage.parent}, not {_STANDS_FOR}")
        base = self._work / "base"
        root = Root(base, [base], dict(_ENVIRONMENT))
        if not (base / "usr/local/bin/python").is_symlink():
            shutil.rmtree(base, ignore_errors=True)
            _run(
                "debootstrap", "--variant=minbase", "--include=ca-certificates", _DEBIAN, str(base)
            )
            shutil.copy2("/etc/resolv.conf", base / "etc/resolv.conf")
            (base / "etc/apt/apt.conf.d/docker-clean").write_text(_NO_CACHE)
            install = f"apt-get install -y --no-install-recommends {' '.join(_PACKAGES)}"
            clean = "rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb"
            _run(*root.command(["/bin/sh", "-c", f"apt-get update && {install} && {clean}"]))
            (base / "usr/local/bin/python").symlink_to("/usr/bin/python3.11")
        return root


def size_of(folder: Path) -> int:
    """Return how many bytes of the disk a folder takes."""
    counted = subprocess.run(["du", "-s", "-B1", folder], capture_output=True, check=True)
    return int(counted.stdout.split()[0])


def _ignored(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").split() if path.exists() else []
    return [line.removeprefix("**/") for line in lines]


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        print(done.stdout, flush=True)
        done.check_returncode()
