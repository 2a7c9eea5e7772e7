"""What is run on the source tree and is no part of the package."""
