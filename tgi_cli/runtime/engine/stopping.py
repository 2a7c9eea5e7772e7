"""Whether a sequence ends with the token that it was just given.

Length first, then end of sequence (spec/scheduling.md section 11). Stop strings need text and are
the router's.
"""

from __future__ import annotations

from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.types import FinishReason


def finish_reason(
    seq: Sequence, eos_token_ids: frozenset[int], *, is_complete: bool = False
) -> FinishReason | None:
    """Return why `seq` ends after its newest token, or None if it goes on.

    `is_complete`: its grammar lets nothing follow, which ends it even if it ignores the end.
    """
    if seq.num_output_tokens >= seq.max_new_tokens:
        return FinishReason.LENGTH
    if is_complete or (not seq.ignore_eos and seq.token_ids[-1] in eos_token_ids):
        return FinishReason.EOS_TOKEN
    return None
