"""`tgi`: download, quantize, serve, bench and check large language models."""

__version__ = "0.1.0"
