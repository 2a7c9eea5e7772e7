"""A small task for `lm-eval`, and what transformers scores on it."""
