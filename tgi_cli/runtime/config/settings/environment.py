"""Options that have a variable and no flag."""

from __future__ import annotations

from tgi_cli.runtime.config import parsers
from tgi_cli.runtime.config.settings.setting import ENVIRONMENT, Setting, switch, text

_DEVICE_LIST = "GPUs that may be used, a comma list; the first computes."

ENVIRONMENT_SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="hf_token",
        group=ENVIRONMENT,
        help="Token for the hub; the hub's own login file is read when it is unset.",
        fallback_variables=("HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN"),
        is_secret=True,
    ),
    switch("prefix_caching", ENVIRONMENT, "Share the KV cache of equal beginnings of prompts."),
    switch(
        "prefill_chunking",
        ENVIRONMENT,
        "Compute long prompts in chunks beside the others' decoding; 0: each in one step.",
    ),
    switch(
        "use_flash_attention",
        ENVIRONMENT,
        "false chose TGI's padded path.",
        no_effect="there is no padded path",
    ),
    Setting(
        name="log_format",
        group=ENVIRONMENT,
        parse=parsers.log_format,
        metavar="text|json",
        help="json is --json-output.",
    ),
    switch("log_colorize", ENVIRONMENT, "Colour the log on a terminal."),
    Setting(
        name="tgi_wiggle_room",
        group=ENVIRONMENT,
        parse=parsers.share,
        metavar="SHARE",
        help="Share of the free memory that the KV cache may take.",
    ),
    text(
        "compute_type",
        ENVIRONMENT,
        "What the header x-compute-type says.",
        note="N-GPU_NAME, or gpu+optimized",
    ),
    text("docker_label", ENVIRONMENT, "The image's label, for /info and the fingerprint."),
    text("build_sha", ENVIRONMENT, "The build's commit, for /info."),
    text("cuda_visible_devices", ENVIRONMENT, _DEVICE_LIST),
    text(
        "nvidia_visible_devices",
        ENVIRONMENT,
        "Read where CUDA_VISIBLE_DEVICES is unset; all and void count the driver's.",
    ),
    text("ze_affinity_mask", ENVIRONMENT, "Read where both are unset."),
    Setting(
        name="aip_http_port",
        group=ENVIRONMENT,
        parse=parsers.port,
        metavar="N",
        help="Vertex AI's port; it wins over --port.",
    ),
    Setting(
        name="aip_predict_route",
        group=ENVIRONMENT,
        parse=parsers.route,
        metavar="PATH",
        help="Vertex AI's route for predictions.",
    ),
    Setting(
        name="aip_health_route",
        group=ENVIRONMENT,
        parse=parsers.route,
        metavar="PATH",
        help="Vertex AI's route for health checks.",
    ),
)

HUB_VARIABLES: tuple[tuple[str, str], ...] = (
    ("HF_HOME", "Root of the hub's cache."),
    ("HF_HUB_OFFLINE", "1: use the cache only, never the network."),
    ("HF_HUB_ENABLE_HF_TRANSFER", "The hub library's fast download, where it has one."),
    ("HF_HUB_USER_AGENT_ORIGIN", "Appended to the user agent of calls to the hub."),
)
"""Read by the hub library, not by this table; named here so that the reference page has them."""

SAGEMAKER_VARIABLES: tuple[tuple[str, str], ...] = (
    ("HF_MODEL_ID", "MODEL_ID"),
    ("HF_MODEL_REVISION", "REVISION"),
    ("SM_NUM_GPUS", "NUM_SHARD"),
    ("HF_MODEL_QUANTIZE", "QUANTIZE"),
    ("HF_MODEL_TRUST_REMOTE_CODE", "TRUST_REMOTE_CODE"),
)
"""SageMaker's names, which stand in for ours when no model is given in any other way."""

UNUSED_VARIABLES: tuple[tuple[str, str], ...] = (
    ("EXLLAMA_VERSION", "Choice of a GPTQ kernel."),
    ("DISABLE_EXLLAMA", "Choice of a GPTQ kernel."),
    ("EXLLAMA_NO_FLASH_ATTN", "Choice of a GPTQ kernel."),
    ("ROCM_USE_FLASH_ATTN_V2_TRITON", "Choice of AMD kernels."),
    ("ROCM_USE_CUSTOM_PAGED_ATTN", "Choice of AMD kernels."),
    ("ROCM_USE_SKINNY_GEMM", "Choice of AMD kernels."),
    ("PYTORCH_TUNABLEOP_*", "Choice of AMD kernels."),
    ("XPU_MEMORY_FRACTION", "Share of an Intel GPU's memory."),
)
"""TGI's variables for hardware that this version doesn't compute on: never read."""
