"""How likely each token of a prompt was after those before it, by the model's own scores.

No penalty, bias, temperature or cut-off has a part in it. A row's bits depend on the row alone, so
it doesn't matter in how many chunks the prompt was computed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tgi_cli.kernels.best_token import best_token
from tgi_cli.runtime.engine.sampling.logits import Candidates, best_scores
from tgi_cli.runtime.engine.sequence import Sequence
from tgi_cli.runtime.ipc.messages import PromptScore


def score_prompt(seq: Sequence, logits: Tensor) -> None:
    """Add the scores of a prompt's next tokens, by the logits [n, V] before each of them.

    A row that isn't finite gives NaN and no best tokens.
    """
    first = len(seq.prompt_scores) + 1
    next_ids = torch.tensor(seq.token_ids[first : first + len(logits)])
    best_ids, best_logprobs = best_token(logits)
    pairs = torch.stack((next_ids, best_ids), dim=-1)  # [n, 2]
    scores, best = logits.gather(-1, pairs).double().unbind(-1)
    logprobs = best_logprobs.double() + (scores - best)
    for row, logprob, best_logprob in zip(
        logits, logprobs.tolist(), best_logprobs.tolist(), strict=True
    ):
        wants_top = seq.prompt_top_n > 0 and not math.isnan(best_logprob)
        top = (
            best_scores(Candidates(row, None), seq.prompt_top_n, best_logprob) if wants_top else []
        )
        seq.prompt_scores.append(PromptScore(logprob, top))
