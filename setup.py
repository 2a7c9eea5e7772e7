"""Build the native CPU kernels: every `cpu.c` under `tgi_cli/kernels`, in one library.

The library has a plain C interface and is loaded with `ctypes` (`tgi_cli/kernels/native`). It's
optional: without a C compiler the installation succeeds and torch computes instead, slower.
Instruction sets are chosen when it is loaded, so one build serves each machine of an architecture.
"""

from glob import glob

from setuptools import Extension, setup

# No -ffast-math: output bits may depend on nothing but the input.
COMPILE = ["-std=gnu11", "-O3", "-g0", "-fopenmp", "-Wall", "-Wno-psabi"]

setup(
    ext_modules=[
        Extension(
            "tgi_cli.kernels.native._native",
            sources=sorted(glob("tgi_cli/kernels/*/*.c")),
            depends=sorted(glob("tgi_cli/kernels/*/*.h")),
            extra_compile_args=COMPILE,
            extra_link_args=["-fopenmp"],
            libraries=["m"],
            optional=True,
        )
    ]
)
