"""Libraries that quantise in place of our own solvers, if they are installed: one file a library.

A library runs in a process of its own, since it takes over threads, signals and the terminal, and
may fail in any way; what it prints goes to a log beside the result. It is imported there and
nowhere else. Its checkpoint is read and measured like one of ours.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tgi_cli.errors import MissingExtraError, UnsupportedModelError
from tgi_cli.runtime.config.quantize import QuantizeBackend, QuantizeRecipe
from tgi_cli.runtime.quantize.backends.job import BackendJob

_MODULE = "tgi_cli.runtime.quantize.backends"
_LOG = "backend.log"


@dataclass(frozen=True, slots=True)
class _Library:
    package: str
    versions: tuple[str, ...]  # beginnings of those that the adapter was written for
    needs: tuple[tuple[str, str], ...] = ()  # a package, and the major version it stops at

    @property
    def wanted(self) -> str:
        return " or ".join(f"{version}.*" for version in self.versions)


_LIBRARIES: dict[QuantizeBackend, _Library] = {
    "gptqmodel": _Library("gptqmodel", ("7.6",)),
    "autoawq": _Library("autoawq", ("0.2",), needs=(("transformers", "5"),)),
    "autogptq": _Library("auto-gptq", ("0.7",), needs=(("transformers", "5"),)),
}


def check_backend(backend: QuantizeBackend) -> None:
    """Check that a library is here, in a version that the adapter knows.

    Raises:
        MissingExtraError: it isn't, or can't run beside what is installed.
    """
    library = _LIBRARIES[backend]
    found = _version(library.package)
    if found is None:
        raise MissingExtraError(
            f"--backend {backend} needs the package {library.package} {library.wanted}, which "
            "isn't installed.",
            hint=f"pip install '{library.package}=={library.versions[-1]}.*', or --backend own.",
        )
    if not found.startswith(tuple(f"{version}." for version in library.versions)):
        raise MissingExtraError(
            f"--backend {backend} works with {library.package} {library.wanted}; {found} is "
            "installed.",
            hint="Use --backend own.",
        )
    for package, limit in library.needs:
        installed = _version(package)
        if installed is not None and int(installed.partition(".")[0]) >= int(limit):
            raise MissingExtraError(
                f"--backend {backend}: {library.package} {found} can't run with {package} "
                f"{installed}; it needs one below {limit}.",
                hint="Use --backend own, or an environment of its own for the library.",
            )


def run_backend(
    source: Path, recipe: QuantizeRecipe, windows: list[list[int]], into: Path, work: Path
) -> None:
    """Have the library quantise the model in the folder `source` and save it in `into`.

    Raises:
        UnsupportedModelError: it failed; the message has its last line, the log all of them.
    """
    job = BackendJob(
        backend=recipe.backend,
        source=str(source),
        into=str(into),
        method="awq" if recipe.method == "awq" else "gptq",
        bits=recipe.bits,
        group_size=recipe.group_size,
        symmetric=recipe.symmetric,
        desc_act=recipe.desc_act,
        damp=recipe.damp,
        device=recipe.device,
        windows=windows,
    )
    log = work / _LOG
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-P", "-m", _MODULE],
            input=msgspec.json.encode(job),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            cwd=work,  # where a library may leave logs of its own
            check=False,
        )
    if done.returncode != 0:
        lines = log.read_text(errors="replace").strip().splitlines()
        reason = lines[-1].strip()[:300] if lines else f"exit code {done.returncode}"
        raise UnsupportedModelError(
            f"--backend {recipe.backend} failed: {reason}",
            hint=f"All that it printed is in {work.name}/{_LOG}; --backend own needs no library.",
        )


def _environment() -> dict[str, str]:
    workers = {"GPTQMODEL_CPU_WORKERS": str(max(2, len(os.sched_getaffinity(0))))}
    offline = {"HF_HUB_OFFLINE": "1"}  # the model and the text are here
    secrets = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN")
    kept = {name: value for name, value in os.environ.items() if name not in secrets}
    return kept | workers | offline


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
