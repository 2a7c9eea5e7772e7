"""Every error that `tgi` shows to somebody, and who can act on it.

    TgiError
    ├── RequestError                 the client can act; `kind` and `status` go on the wire
    │   ├── ValidationError              422 validation
    │   ├── TemplateError                422 template_error
    │   ├── MissingTemplateVariable      422 missing_template_variable
    │   ├── ToolError                    422 tool_error
    │   ├── SuffixNotSupported           422 suffix not supported
    │   ├── TooManyPrompts               422 batch size exceeded
    │   ├── EmptyInstances               422 Input validation error
    │   ├── LengthMismatch               422 length mismatch
    │   ├── NotUtf8                      422 utf8
    │   ├── OverloadedError              429 overloaded
    │   ├── GenerationError              424 generation
    │   ├── IncompleteGeneration         500 incomplete_generation
    │   ├── IncompleteGenerationStream   500 incomplete_generation_stream
    │   └── UnhealthyError               503 healthcheck
    └── StartError                   the operator can act; `exit_code` ends the process
        ├── ArgumentError                options that contradict each other
        │   └── UsageError                   the same of a command whose exit code for it is 2
        ├── ModelNotFoundError           no such folder, file or hub id
        │   └── HubUnreachableError          the hub doesn't answer, however often it is asked
        ├── NotAModelError               found, but not a model
        ├── UnsupportedModelError        a model that this build can't run
        ├── CorruptModelError            truncated, overlapping, mistyped or missing tensors
        ├── ConversionError              weights that can't be turned into safetensors
        ├── VerificationError            a downloaded file that isn't what the hub says it is
        ├── DiskSpaceError               the files don't fit the disk
        ├── CapacityError                the model or its limits can't fit this machine
        ├── QualityError                 a quantised model that isn't worth its bound
        ├── ListenError                  the address can't be listened on
        ├── MissingExtraError            an option needs a package that isn't installed
        ├── WorkerUnavailable            a process for templates or grammars doesn't start
        ├── UnreachableError             the endpoint that a bench is for doesn't answer
        └── EngineDiedError              an engine process ended on its own

`message` is whole and safe to print: it never holds a secret, a prompt or, for a `RequestError`,
a path of the server. `hint` is the fix. Wire texts: spec/http-api.md sections 5 and 6.
"""

from __future__ import annotations


class TgiError(Exception):
    """An error with an author, a reader and a fix."""

    kind = "internal"
    status = 500
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class RequestError(TgiError):
    """A request that can't be answered as asked; `wire_text` is what the client reads.

    A message that quotes the client gives the log another one, `log_message`, that doesn't.
    """

    prefix = ""

    def __init__(
        self, message: str, *, hint: str | None = None, log_message: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self._log_message = message if log_message is None else log_message

    @property
    def wire_text(self) -> str:
        return self.prefix + self.message

    @property
    def log_text(self) -> str:
        """What the server's log may say of it."""
        return self.prefix + self._log_message


class ValidationError(RequestError):
    """The request is well formed but asks for something out of range."""

    kind, status, prefix = "validation", 422, "Input validation error: "


class TemplateError(RequestError):
    """The chat template is missing or refused these messages."""

    kind, status, prefix = "template_error", 422, "Template error: "

    def __init__(self, message: str) -> None:
        # A template may put what a user wrote into the error that it raises.
        super().__init__(message, log_message="the chat template failed")


class MissingTemplateVariable(RequestError):
    """The chat template needs a variable that the request doesn't give."""

    # The misspelling is on the wire: clients match it.
    kind, status, prefix = "missing_template_variable", 422, "Missing template vatiable: "


class ToolError(RequestError):
    """The tools of a chat can't be used as asked."""

    kind, status, prefix = "tool_error", 422, "Tool error: "


class SuffixNotSupported(RequestError):
    """`suffix` was given to `/v1/completions`."""

    kind, status = "suffix not supported", 422

    def __init__(self) -> None:
        super().__init__("Suffix is not supported and can be achieved by preprocessing the prompt.")


class TooManyPrompts(RequestError):
    """One `/v1/completions` call holds more prompts than the server takes."""

    kind, status = "batch size exceeded", 422

    def __init__(self, max_client_batch_size: int) -> None:
        super().__init__(
            f"Number of prompts exceeds the maximum allowed batch size of {max_client_batch_size}"
        )


class EmptyInstances(RequestError):
    """A Vertex call without an instance."""

    kind, status = "Input validation error", 422

    def __init__(self) -> None:
        super().__init__("Input validation error")


class LengthMismatch(RequestError):
    """A KServe call that wants more or fewer outputs than it has inputs."""

    kind, status = "length mismatch", 422

    def __init__(self) -> None:
        super().__init__("Inputs and outputs length mismatch")


class NotUtf8(RequestError):
    """A KServe input whose bytes are no text."""

    kind, status = "utf8", 422

    def __init__(self, position: int) -> None:
        super().__init__(f"invalid utf-8 sequence from index {position}")


class OverloadedError(RequestError):
    """Every permit is taken; the client may try again later."""

    kind, status = "overloaded", 429

    def __init__(self) -> None:
        super().__init__("Model is overloaded")


class GenerationError(RequestError):
    """The engine failed while it worked on the request."""

    kind, status, prefix = "generation", 424, "Request failed during generation: "


class IncompleteGeneration(RequestError):
    """The engine stopped before the request ended."""

    kind, status = "incomplete_generation", 500

    def __init__(self) -> None:
        super().__init__("Incomplete generation")


class IncompleteGenerationStream(RequestError):
    """The engine stopped in the middle of a stream."""

    kind, status = "incomplete_generation_stream", 500

    def __init__(self) -> None:
        super().__init__("Incomplete generation stream")


class UnhealthyError(RequestError):
    """The server can't answer generation requests now."""

    kind, status = "healthcheck", 503

    def __init__(self) -> None:
        super().__init__("unhealthy")


class StartError(TgiError):
    """The server can't start, or can't go on, until its operator changes something."""

    kind = "start"


class ArgumentError(StartError):
    """Options that are out of range or contradict each other."""

    kind = "argument"


class UsageError(ArgumentError):
    """Options of `tgi bench` or `tgi download` that can't be read or contradict each other."""

    exit_code = 2


class ModelNotFoundError(StartError):
    """No folder, file or hub repository has this name."""

    kind = "model_not_found"


class HubUnreachableError(ModelNotFoundError):
    """The hub can't be reached, or not for long enough to fetch the files."""

    kind = "hub_unreachable"


class NotAModelError(StartError):
    """The folder or file exists but isn't a model."""

    kind = "not_a_model"


class UnsupportedModelError(StartError):
    """A model whose architecture, tokenizer or tensor types this build can't run."""

    kind = "unsupported_model"


class CorruptModelError(StartError):
    """A model file that contradicts itself or its configuration."""

    kind = "corrupt_model"


class ConversionError(StartError):
    """Weights that can't be converted: hostile, damaged, or of an unknown kind."""

    kind, exit_code = "conversion", 6


class VerificationError(StartError):
    """A file whose size, hash or inner structure isn't what the hub or its index says."""

    kind = "verification"


class DiskSpaceError(StartError):
    """The file system is full, or would be."""

    kind = "disk_space"


class CapacityError(StartError):
    """The model, or one full-length request, can't fit this machine's memory."""

    kind = "capacity"


class DeterminismError(StartError):
    """The same request gave other bits in other company."""

    kind = "determinism"


class QualityError(StartError):
    """A quantised model that is further from its original than was allowed."""

    kind, exit_code = "quality", 3


class ListenError(StartError):
    """The address is in use, forbidden or doesn't exist."""

    kind = "listen"


class MissingExtraError(StartError):
    """An option needs an optional package of ours that isn't installed."""

    kind = "missing_extra"


class WorkerUnavailable(StartError):
    """A process that renders templates or checks grammars doesn't come up."""

    kind = "worker"


class UnreachableError(StartError):
    """Nothing answers at the endpoint, or not one request to it goes well."""

    kind, exit_code = "unreachable", 6


class EngineDiedError(StartError):
    """An engine process ended without being asked to."""

    kind = "engine_died"


START_ERRORS: dict[str, type[StartError]] = {
    cls.kind: cls
    for cls in (
        StartError,
        ArgumentError,
        ModelNotFoundError,
        NotAModelError,
        UnsupportedModelError,
        CorruptModelError,
        CapacityError,
        DeterminismError,
        ListenError,
        MissingExtraError,
        EngineDiedError,
    )
}
"""By `kind`, so that an error raised in an engine process is raised again in the main one."""
