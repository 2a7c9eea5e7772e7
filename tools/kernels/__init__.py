"""Proof of the Triton kernels on a machine that has no GPU: numbers, resources, bytes, bounds.

`python -m tools.kernels` (`make kernels`) prints one table and fails on a broken promise.
`docs/concepts/kernels.md` explains it.
"""
