"""Draw a token of each row of scores by inverse transform, among those up to the row's limit.

    y = (s - max s) / temperature;  w = exp(y) where `kernels.score_cuts` left it, else 0
    id      the first, in ascending order, whose sum of w from id 0 up passes uniform * total
    logprob y[id] - log(total)

Weights are fp32 and sums fp64, in fixed trees over chunks of 4096 scores: a row's bits depend on
the row alone. The uniform number is given, a function of seed and position. `kernel.py` is Triton;
on a CPU the engine draws row by row (`runtime/engine/sampling/logits.py`): the same in value.
`settings.py` is the table in which a row says what it asks for, of this and of the operations
around it.
"""
