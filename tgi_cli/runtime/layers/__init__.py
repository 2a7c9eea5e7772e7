"""The parts that models are wired from: each owns its weights and calls one kernel."""
