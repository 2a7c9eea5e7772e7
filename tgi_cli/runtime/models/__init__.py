"""Model families: wiring of layers, and the loading of their weights."""
