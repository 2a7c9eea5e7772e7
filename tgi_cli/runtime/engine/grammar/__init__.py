"""Guided decoding: which tokens a grammar allows next."""
