"""Find a model's files and read them without trusting them."""
