"""Nothing from a model's folder is imported or run, however the folder asks for it.

Every process of the server gets an audit hook, which notes each Python file below the folder that
is opened, compiled or imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.builders.checkpoints import write_tiny_checkpoint
from tests.builders.served import served

TRAP = "open({mark!r}, 'a').write(__name__ + '\\n')\nraise SystemExit('a trap ran')\n"
HOOK = """
import sys

FOLDER, NOTES = {folder!r}, {notes!r}

def note(event, args):
    if event in ("open", "import", "exec", "compile"):
        # A file's name stands in another place for each event.
        texts = [getattr(each, "co_filename", each) for each in args]
        if any(isinstance(text, (str, bytes)) and is_trap(text) for text in texts):
            with open(NOTES, "a") as notes:
                notes.write(event + " " + repr(args[:2]) + "\\n")

def is_trap(text):
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    return text.startswith(FOLDER) and text.endswith((".py", ".pyc", ".so"))

sys.addaudithook(note)
open(NOTES + ".hooked", "a").write("x")
"""
NAMES = ("modeling_x", "configuration_x", "tokenization_x", "__init__", "sitecustomize", "torch",
         "conftest", "custom_generate/generate", "quantizer")  # fmt: skip


def set_traps(folder: Path, mark: Path) -> None:
    """Put code, and every known way of asking for it, into the folder."""
    for name in NAMES:
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(TRAP.format(mark=str(mark)))
    auto_map = {
        "AutoConfig": "configuration_x.XConfig",
        "AutoModelForCausalLM": "modeling_x.XForCausalLM",
        "AutoTokenizer": ["tokenization_x.XTokenizer", "tokenization_x.XTokenizerFast"],
    }
    asked = {
        "config.json": {
            "auto_map": auto_map,
            "trust_remote_code": True,
            "_attn_implementation_internal": "modeling_x",
            "custom_pipelines": {"text-generation": {"impl": "modeling_x.XPipeline"}},
        },
        "tokenizer_config.json": {
            "auto_map": auto_map,
            "tokenizer_class": "tokenization_x.XTokenizer",
            "trust_remote_code": True,
        },
        "generation_config.json": {"custom_generate": "custom_generate/generate.py"},
    }
    for name, keys in asked.items():
        path = folder / name
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | keys))


def post(url: str, body: object) -> int:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        response.read()
        return int(response.status)


def test_code_in_a_model_folder_is_never_touched(tmp_path, monkeypatch):
    folder, hook = tmp_path / "model", tmp_path / "hook"
    folder.mkdir()
    hook.mkdir()
    notes, mark = tmp_path / "notes", tmp_path / "mark"
    write_tiny_checkpoint(folder)
    set_traps(folder, mark)
    source = HOOK.format(folder=str(folder), notes=str(notes))
    (hook / "sitecustomize.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(hook), prepend=":")

    with served("--model-id", str(folder)) as server:
        url = server.wait_ready()
        statuses = [
            post(f"{url}/generate", {"inputs": "x", "parameters": {"max_new_tokens": 3}}),
            post(
                f"{url}/v1/chat/completions",
                {"messages": [{"role": "user", "content": "x"}], "max_tokens": 3},
            ),
        ]

    assert statuses == [200, 200]
    assert not mark.exists()
    assert not notes.exists(), notes.read_text()
    num_hooked = len(Path(f"{notes}.hooked").read_text())
    assert num_hooked >= 3, "router, engine and template worker must all have had the hook"


@pytest.mark.parametrize("event", ["open", "import"])
def test_the_hook_would_notice(tmp_path, event):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "trap.py").write_text("")
    source = HOOK.format(folder=str(folder), notes=str(tmp_path / "notes"))
    action = {
        "open": f"open({str(folder / 'trap.py')!r})",
        "import": f"import sys; sys.path.insert(0, {str(folder)!r}); import trap",
    }[event]

    subprocess.run([sys.executable, "-c", f"{source}\n{action}"], check=True)

    assert "trap.py" in (tmp_path / "notes").read_text()
