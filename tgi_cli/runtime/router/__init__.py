"""The HTTP side: TGI's and OpenAI's protocols over one engine. Knows text, and no tensors."""
