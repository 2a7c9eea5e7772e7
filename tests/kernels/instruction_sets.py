"""The sets of vectors that CPU kernels are compiled for, by their numbers."""

SETS = {0: "portable", 1: "avx2", 2: "avx512"}
