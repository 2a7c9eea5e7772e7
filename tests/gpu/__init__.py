"""What only a GPU can show: `python -m pytest tests/gpu`, by itself.

Tests of `tests/kernels/triton` put Triton into its interpreter for the whole process.
"""
