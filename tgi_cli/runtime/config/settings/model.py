"""Options about the model: what it is, how its numbers are kept, what it may be asked."""

from __future__ import annotations

from typing import get_args

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.model_config import KvCacheDtype
from tgi_cli.runtime.config.options import Quantize
from tgi_cli.runtime.config.settings.setting import MODEL, Setting, choice, count, switch, text

MODEL_SETTINGS: tuple[Setting, ...] = (
    text(
        "model_id",
        MODEL,
        "Hub id, folder of safetensors, .gguf file, or demo: a small model to try.",
    ),
    text("revision", MODEL, "Branch, tag or commit of the hub repository."),
    choice(
        "dtype",
        MODEL,
        ("float16", "bfloat16", "float32"),
        "Number format to which the weights are rounded.",
        note="the checkpoint's own",
    ),
    choice(
        "quantize",
        MODEL,
        get_args(Quantize),
        "The checkpoint's method, or one for plain weights: eetq, fp8 or bitsandbytes; or gguf.",
        note="the checkpoint's own",
    ),
    choice(
        "kv_cache_dtype",
        MODEL,
        get_args(KvCacheDtype),
        "Number format of keys and values in the cache; fp8 isn't for CPUs.",
        note="dtype",
    ),
    switch(
        "trust_remote_code",
        MODEL,
        "Accepted; nothing here runs code that comes with a model.",
        no_effect="no code of a model's repository is ever run",
    ),
    count("speculate", MODEL, "Tokens to draft ahead; this version takes 0.", note="0"),
    Setting(
        name="lora_adapters",
        group=MODEL,
        parse=parsers.names,
        metavar="ID[=PATH][@REVISION],...",
        help="LoRA adapters to load; this version serves none.",
        default_note="none",
    ),
    choice(
        "rope_scaling",
        MODEL,
        ("linear", "dynamic"),
        "Scaling of rotary positions in place of the model's own.",
        note="the model's own; linear if there is a factor",
    ),
    Setting(
        name="rope_factor",
        group=MODEL,
        parse=parsers.scale,
        metavar="FACTOR",
        help="Factor of that scaling.",
        default_note="1.0 if there is a scaling",
    ),
    text(
        "tokenizer_config_path",
        MODEL,
        "Use this file in place of the model's tokenizer_config.json.",
        metavar="FILE",
    ),
    switch("disable_grammar_support", MODEL, "Refuse requests that ask for a grammar."),
    Setting(
        name="enable_prefill_logprobs",
        group=MODEL,
        parse=parsers.switch,
        metavar="true|false",
        help="Accepted; each request may ask for the prompt's logprobs in any case.",
        fallback_variables=("REQUEST_LOGPROBS",),
    ),
    Setting(
        name="watermark_gamma",
        group=MODEL,
        parse=parsers.part,
        metavar="SHARE",
        help="Share of the vocabulary on a watermark's green list.",
    ),
    Setting(
        name="watermark_delta",
        group=MODEL,
        parse=parsers.number,
        metavar="NUMBER",
        help="What a watermark adds to a green token's score.",
    ),
    text(
        "huggingface_hub_cache",
        MODEL,
        "Folder of the hub's cache.",
        metavar="FOLDER",
        note="the hub library's",
    ),
    text(
        "weights_cache_override",
        MODEL,
        "Folder that already holds the weights; only the small files come from the hub.",
        metavar="FOLDER",
    ),
    switch(
        "disable_custom_kernels",
        MODEL,
        "Compute with torch's operations in place of our native kernels: slower; on a CPU only.",
    ),
    Setting(
        name="cuda_memory_fraction",
        group=MODEL,
        parse=parsers.share,
        metavar="SHARE",
        help="Share of a GPU's memory to use; on a CPU, of what the machine has available.",
    ),
    Setting(
        name="cuda_graphs",
        group=MODEL,
        parse=parsers.batch_sizes,
        metavar="N,...",
        help="Batch sizes whose decode steps a GPU replays as CUDA graphs; 0 is none.",
        default_note="1,2,4,8, then each eighth up to the largest batch; none on a CPU",
    ),
)
