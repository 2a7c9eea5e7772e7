"""The engine: scheduler, KV blocks, model steps and sampling, in a process of its own."""
