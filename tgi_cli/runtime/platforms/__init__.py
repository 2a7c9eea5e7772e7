"""The only device tests outside the kernels."""
