"""`tgi quantize`: grids, solvers, calibration, checkpoints and their quality."""
