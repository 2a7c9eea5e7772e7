"""How far the way to a GPU is there, on machines made of files and with a driver made of C."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import msgspec
import pytest

from tgi_cli.runtime.config.facts import DriverFacts, GpuFacts, GpuStack
from tgi_cli.runtime.serving import gpu_probe, gpus

GIB = 1 << 30
LIBCUDA = r"""
#include <stdlib.h>
#include <string.h>
static int number(const char *name) { return getenv(name) ? atoi(getenv(name)) : 0; }
int cuInit(unsigned flags) { if (number("TEST_CRASH")) abort(); return number("TEST_ERROR"); }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuDeviceGetCount(int *count) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    *count = visible ? (int)strlen(visible) : 2;
    return 0;
}
int cuDeviceGet(int *device, int index) { *device = index + 40; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strncpy(name, device == 40 ? "NVIDIA H100 80GB HBM3" : "NVIDIA L4", size);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)(device * 2) << 30;
    return 0;
}
int cuDeviceGetAttribute(int *value, int which, int device) {
    *value = which == 75 ? (device == 40 ? 9 : 8) : which == 76 ? (device == 40 ? 0 : 9) : -1;
    return 0;
}
int cuGetErrorName(int code, const char **text) {
    *text = "CUDA_ERROR_SYSTEM_NOT_READY";
    return 0;
}
"""


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"dev/nvidiactl": ""}, "NVIDIA"),
        ({"dev/kfd": ""}, "AMD"),
        ({"dev/kfd": "", "dev/nvidiactl": ""}, "NVIDIA"),
        ({"sys/bus/pci/devices/3/class": "0x030200\n"}, None),  # whose, nobody knows
        (
            {
                "sys/bus/pci/devices/3/class": "0x030200\n",
                "sys/bus/pci/devices/3/vendor": "0x10de\n",
            },
            "NVIDIA",  # the card is there, and no driver
        ),
        (
            {
                "sys/bus/pci/devices/3/class": "0x040300\n",
                "sys/bus/pci/devices/3/vendor": "0x10de\n",
            },
            None,  # its sound
        ),
        (
            {
                "sys/bus/pci/devices/3/class": "0x030000\n",
                "sys/bus/pci/devices/3/vendor": "0x1002\n",
            },
            None,  # a screen's
        ),
    ],
)
def test_cards_are_found_on_the_bus_or_by_their_drivers_files(
    files: dict[str, str], expected: str | None, tmp_path: Path
) -> None:
    assert gpus.find_maker(machine(tmp_path, files)) == expected


def test_a_machine_without_cards_is_asked_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "ask_driver", lambda *_: pytest.fail("asked"))

    assert gpus.read_gpus(None, tmp_path) == GpuStack()


@pytest.fixture(scope="module")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "cuda.c").write_text(LIBCUDA)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "cuda.c"], check=True
    )
    return folder


@pytest.fixture
def driver(libcuda: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Put the driver where the loader looks; return what sets variables."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libcuda))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return monkeypatch


H100 = GpuFacts("NVIDIA H100 80GB HBM3", "sm_90", 80 * GIB)
L4 = GpuFacts("NVIDIA L4", "sm_89", 82 * GIB)


def test_the_driver_is_asked_for_names_capabilities_memory_and_version(
    driver: pytest.MonkeyPatch,
) -> None:
    assert gpus.ask_driver("NVIDIA", None) == DriverFacts((H100, L4), (12, 8))


def test_the_driver_is_told_which_devices_are_visible(driver: pytest.MonkeyPatch) -> None:
    assert gpus.ask_driver("NVIDIA", "0") == DriverFacts((H100,), (12, 8))
    assert gpus.ask_driver("NVIDIA", "") == DriverFacts((), (12, 8))


def test_a_driver_that_leaves_no_device_visible_is_no_error(driver: pytest.MonkeyPatch) -> None:
    driver.setenv("TEST_ERROR", "100")

    assert gpus.ask_driver("NVIDIA", None) == DriverFacts()


def test_a_drivers_error_is_named(driver: pytest.MonkeyPatch) -> None:
    driver.setenv("TEST_ERROR", "802")

    facts = gpus.ask_driver("NVIDIA", None)

    assert facts.error == "it says CUDA_ERROR_SYSTEM_NOT_READY (802)"


def test_a_driver_that_crashes_takes_nobody_along(driver: pytest.MonkeyPatch) -> None:
    driver.setenv("TEST_CRASH", "1")

    assert gpus.ask_driver("NVIDIA", None).error == "asking it ended in a crash"


def test_a_driver_that_hangs_is_given_up(
    driver: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "_PROBE_TIMEOUT_S", 0.0)

    assert gpus.ask_driver("NVIDIA", None).error == "it hasn't answered for 0 seconds"


def test_a_machine_without_the_driver_says_which_file_is_missing() -> None:
    assert gpu_probe.ask_nvidia() == {"error": "libcuda.so.1 can't be loaded"}


def test_a_library_of_that_name_may_be_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_probe.ctypes, "CDLL", lambda _: object())

    assert gpu_probe.ask_nvidia() == {"error": "libcuda.so.1 isn't a CUDA driver"}


def topology(root: Path) -> Path:
    """Write the nodes of a machine with a CPU, an MI300X and an MI250, numbered to be sorted."""
    nodes = "sys/class/kfd/kfd/topology/nodes"
    return machine(
        root,
        {
            f"{nodes}/0/properties": "cpu_cores_count 64\nsimd_count 0\ngfx_target_version 0\n",
            f"{nodes}/2/properties": "simd_count 1216\ngfx_target_version 90402\n",
            f"{nodes}/2/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {192 * GIB}\n",
            f"{nodes}/10/properties": "simd_count 440\ngfx_target_version 90010\nodd line here\n",
            f"{nodes}/10/mem_banks/0/properties": f"size_in_bytes {64 * GIB}\n",
            f"{nodes}/11/name": "whose properties aren't ours to read",
        },
    )


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["gfx942", "gfx90a"]),
        ("1", ["gfx90a"]),
        ("1,0,9,0", ["gfx90a", "gfx942"]),
        ("-1", []),
    ],
)
def test_amds_gpus_are_those_of_the_kernels_topology(
    visible: str | None, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    report = gpu_probe.ask_amd(topology(tmp_path))

    found = msgspec.convert(report, DriverFacts).gpus
    assert [gpu.arch for gpu in found] == expected
    sizes = {"gfx942": 192 * GIB, "gfx90a": 64 * GIB}
    assert all(gpu.total_bytes == sizes[gpu.arch] for gpu in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", ("12.8", None)),
        ("cuda = None\nhip = '7.0.5'\ndebug = False\n", (None, "7.0.5")),
        ("cuda: str\n", (None, None)),
        ("not python (", (None, None)),
        (None, (None, None)),
    ],
)
def test_what_torch_was_built_for_is_read_without_importing_it(
    text: str | None,
    expected: tuple[str | None, str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(gpus, "find_spec", lambda _: spec)
    if text is not None:
        (tmp_path / "version.py").write_text(text)

    assert gpus.torch_builds() == expected


def test_the_whole_way_is_read_where_there_is_a_card(
    driver: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stack = gpus.read_gpus(None, machine(tmp_path, {"dev/nvidiactl": ""}))

    assert stack.maker == "NVIDIA"
    assert stack.gpu == H100
    assert stack.has_triton == gpus.is_installed("triton")
    assert not {"torch", "triton"} & set(_modules_after("import tgi_cli.runtime.serving.gpus"))


@pytest.mark.parametrize(
    ("compiler", "programs", "expected"),
    [
        (None, {"gcc"}, True),
        (None, {"clang"}, True),
        (None, {"cc"}, False),
        ("icx", {"icx"}, True),
        ("icx", {"gcc"}, False),
    ],
)
def test_a_compiler_is_looked_for_where_triton_does(
    compiler: str | None,
    programs: set[str],
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpus, "ask_driver", lambda *_: DriverFacts())
    monkeypatch.setattr(gpus.shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.delenv("CC", raising=False)
    if compiler is not None:
        monkeypatch.setenv("CC", compiler)

    stack = gpus.read_gpus(None, machine(tmp_path, {"dev/nvidiactl": ""}))

    assert stack.has_compiler is expected


def _modules_after(code: str) -> list[str]:
    listing = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return listing.stdout.split()
