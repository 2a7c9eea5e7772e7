"""Real clients of TGI and OpenAI, each in a virtual environment of its own: `make clients`."""
