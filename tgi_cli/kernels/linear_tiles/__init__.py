"""What the matrix products on a GPU share: the cut into tiles and slices, and a weight's form.

`tiling.py` decides and says why a row's bits don't depend on its company, `kernel.py` has the parts
in Triton, `packing.py` what is done to a weight at load.
"""
