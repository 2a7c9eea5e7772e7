"""`tgi quantize --evaluate MODEL --against BASE`: measure a model that is there already."""

from __future__ import annotations

from tgi_cli import __version__
from tgi_cli.errors import ArgumentError
from tgi_cli.runtime.config.facts import HardwareFacts
from tgi_cli.runtime.config.quantize import QuantizeOptions
from tgi_cli.runtime.config.quantize.options import DEFAULT_SEQUENCE_LENGTH
from tgi_cli.runtime.hub.locate import locate_model
from tgi_cli.runtime.platforms import cpu
from tgi_cli.runtime.quantize.calibrate import check_length, held_out
from tgi_cli.runtime.quantize.calibration import held_out_text
from tgi_cli.runtime.quantize.evaluate import compare
from tgi_cli.runtime.quantize.pipeline import public_name
from tgi_cli.runtime.quantize.progress import QuantizeScreen
from tgi_cli.runtime.quantize.report import Evaluation, check_bounds
from tgi_cli.runtime.quantize.report_text import evaluation_text
from tgi_cli.runtime.text.tokenizer import Tokenizer


def evaluate(options: QuantizeOptions, hardware: HardwareFacts, screen: QuantizeScreen) -> int:
    """Measure a model against its original; return the exit code. Raises `StartError`."""
    assert options.evaluate is not None, options
    assert options.against is not None, options
    cpu.set_num_threads(hardware.num_cores)
    base = locate_model(options.against)
    model = locate_model(options.evaluate, revision=options.revision)
    if model.config.vocab_size != base.config.vocab_size:
        raise ArgumentError(
            f"--evaluate: the model has {model.config.vocab_size} tokens and --against "
            f"{base.config.vocab_size}: it is no version of it."
        )
    length = options.sequence_length or DEFAULT_SEQUENCE_LENGTH
    check_length(length, base.config)
    tokenizer = Tokenizer(base.text)
    _check_same_tokens(tokenizer, Tokenizer(model.text))
    text = held_out(tokenizer, options.evaluation_samples, length)
    compared = compare(base, model, text, screen.say)
    found = Evaluation(
        tgi_version=__version__,
        model=public_name(model.model_id),
        against=public_name(base.model_id),
        evaluation_text=text.name,
        quality=compared.quality,
        before=compared.before,
        after=compared.after,
    )
    screen.report(evaluation_text(found), found.json())
    check_bounds(compared.quality, max_kl=options.max_kl, max_ppl_increase=options.max_ppl_increase)
    return 0


def _check_same_tokens(base: Tokenizer, model: Tokenizer) -> None:
    """Compare what they make of the text: the files may be written in different ways."""
    text = held_out_text()
    found = [each.encode(text, add_special_tokens=False) for each in (base, model)]
    if found[0] != found[1]:
        raise ArgumentError(
            "--evaluate: the model and --against have tokenizers that read the same text as "
            "different tokens, so it is no version of it."
        )
