"""Join the command line and the environment into `ServeOptions`; nothing else reads the latter.

A value comes from the flag, else from `TGI_SOME_NAME`, else from `SOME_NAME`, else from
`ServeOptions`. An empty variable counts as unset. Spec: launcher-options.md sections 1 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.options import ServeOptions
from tgi_cli.runtime.config.settings import SETTINGS, Setting
from tgi_cli.runtime.config.settings.environment import SAGEMAKER_VARIABLES

_SAGEMAKER_PORT = "8080"


def merge(
    flags: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[ServeOptions, tuple[str, ...]]:
    """Return the options and the warnings.

    `flags` holds parsed values by field, None where a flag was not given.

    Raises:
        ArgumentError: a variable whose value can't be read, or SageMaker's without a model.
    """
    values = {name: value for name, value in flags.items() if value is not None}
    warnings: list[str] = []
    if "model_id" not in values:
        environ = _with_sagemaker(environ)
    for setting in SETTINGS:
        if setting.name in values:
            continue
        value, warning = _from_environment(setting, environ)
        if value is not None:
            values[setting.name] = value
        if warning is not None:
            warnings.append(warning)
    if "aip_http_port" in values:  # Vertex AI calls this port, whatever else was asked for
        values["port"] = values["aip_http_port"]
        if flags.get("port") not in (None, values["port"]):
            warnings.append("AIP_HTTP_PORT and --port differ; AIP_HTTP_PORT is used")
    if values.get("log_format") == "json":
        values.setdefault("json_output", True)
    return msgspec.convert(values, ServeOptions), tuple(warnings)


def _with_sagemaker(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Let SageMaker's variables stand in for ours, if it is they that name the model."""
    found = {ours: environ[theirs] for theirs, ours in SAGEMAKER_VARIABLES if environ.get(theirs)}
    if not found or environ.get("TGI_MODEL_ID") or environ.get("MODEL_ID"):
        return environ
    if "MODEL_ID" not in found:
        raise ArgumentError(
            "HF_MODEL_ID must be set",
            hint="SageMaker's variables are there, but none of them names the model.",
        )
    given = {name: value for name, value in environ.items() if value}
    return {"PORT": _SAGEMAKER_PORT} | found | given


def _from_environment(setting: Setting, environ: Mapping[str, str]) -> tuple[object, str | None]:
    found = [(name, environ[name]) for name in setting.variables if environ.get(name)]
    if not found:
        return None, None
    (used, value), *others = found
    warning = None
    for name, other in others:
        if other != value and name not in setting.fallback_variables:
            warning = f"{used} and {name} differ; {used} is used"
    try:
        return setting.parse(value), warning
    except ValueError as exc:
        reason = f"{used} is not valid" if setting.is_secret else str(exc)
        raise ArgumentError(f"invalid value for `{used}`: {reason}") from exc
