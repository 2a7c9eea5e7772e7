"""Chats: what a request asks for, its prompt, its runs, and what is shown of them.

    messages, tools ─► call ─► run ─► reply, or events of a stream

`routes/chat.py` has the handlers.
"""
