"""What goes over the wire, to the byte: the transcripts of spec/http-api.md section 18.

Ids and times are replaced; the rest, key order included, is compared as it is.
"""

from __future__ import annotations

import re

from tests.builders.router import END, END_ID, ids_of, script_for, serving
from tgi_cli import __version__

CHAT = {"messages": [{"role": "user", "content": "x"}]}
FINGERPRINT = f'"system_fingerprint":"{__version__}-native"'


async def raw_stream(client, path, body):
    """Return the whole answer as text, ids and times made the same."""
    async with client.session.post(client.url + path, json=body) as response:
        assert response.status == 200
        text = (await response.read()).decode()
    text = re.sub(r'"id":"(?:chat)?cmpl-[0-9a-f]+"', '"id":""', text)
    return re.sub(r'"created":1\d{9}', '"created":1700000000', text)


def frames(*lines):
    return "".join(f"data: {line}\n\n" for line in lines)


async def test_native_stream_with_details():
    body = {"inputs": "x", "parameters": {"details": True, "max_new_tokens": 5}}
    async with serving(script_for("T", end=True)) as client:
        found = await raw_stream(client, "/generate_stream", body)

    letter = ids_of("T")[0]
    assert found == frames(
        f'{{"index":1,"token":{{"id":{letter},"text":"T","logprob":-0.5,"special":false}},'
        '"generated_text":null,"details":null}',
        f'{{"index":2,"token":{{"id":{END_ID},"text":"{END}","logprob":-0.5,"special":true}},'
        '"generated_text":"T","details":{"finish_reason":"eos_token","generated_tokens":2,'
        '"seed":null,"input_length":1}}',
    )


async def test_native_stream_that_is_refused():
    body = {"inputs": "x", "parameters": {"temperature": 0}}
    async with serving() as client:
        found = await raw_stream(client, "/generate_stream", body)

    assert found == frames(
        '{"error":"Input validation error: `temperature` must be strictly positive",'
        '"error_type":"validation"}'
    )


async def test_chat_stream_with_usage():
    body = CHAT | {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5}
    async with serving(script_for("H", end=True)) as client:
        # The template's text is the prompt; the fake goes on from its length.
        prompt = await client.post("/chat_tokenize", CHAT)
        prompt_text = prompt[2]["templated_text"]
    num_prompt = len(ids_of(prompt_text))
    async with serving(script_for("H", end=True, prompt=prompt_text)) as client:
        found = await raw_stream(client, "/v1/chat/completions", body)

    start = (
        '{"object":"chat.completion.chunk","id":"","created":1700000000,"model":"tiny",'
        f"{FINGERPRINT},"
    )
    assert found == frames(
        start + '"choices":[{"index":0,"delta":{"role":"assistant","content":"H"},'
        '"logprobs":null,"finish_reason":null}],"usage":null}',
        start + '"choices":[{"index":0,"delta":{"role":"assistant","content":""},'
        '"logprobs":null,"finish_reason":"stop"}],"usage":null}',
        start + f'"choices":[],"usage":{{"prompt_tokens":{num_prompt},"completion_tokens":2,'
        f'"total_tokens":{num_prompt + 2}}}}}',
        "[DONE]",
    )


async def test_chat_stream_of_a_full_server():
    async with serving(limits={"max_concurrent_requests": 1}) as client:
        client.router._service._permits.take()
        found = await raw_stream(client, "/v1/chat/completions", CHAT | {"stream": True})
        client.router._service._permits.give_back()

    # TGI says 422 here, whatever happened, and no type.
    assert found == frames(
        '{"error":{"message":"Model is overloaded","http_status_code":429},'
        '"error_type":"overloaded"}',
        "[DONE]",
    )


async def test_completion_stream():
    body = {"prompt": "x", "max_tokens": 2, "stream": True}
    async with serving(script_for("P.")) as client:
        found = await raw_stream(client, "/v1/completions", body)

    start, model = '{"object":"text_completion","id":"","created":1700000000,', '"model":"tiny",'
    assert found == frames(
        start + '"choices":[{"index":0,"text":"P","logprobs":null,"finish_reason":""}],'
        f"{model}{FINGERPRINT}}}",
        f"{start}{model}{FINGERPRINT},"
        '"choices":[{"index":0,"text":".","logprobs":null,"finish_reason":"length"}],'
        '"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}',
        "[DONE]",
    )
