"""Text to token ids and back. Only the router's process has text."""
