"""What only a GPU can show: `TRITON_INTERPRET=0 python -m pytest tests/gpu`.

Without that variable tests put Triton into its interpreter, for the whole process.
"""
