"""Cut the scores of a row down to those that may be drawn: top-k, top-p, min-p.

    y = (s - max s) / temperature;  w = exp(y)
    top-k   keep y >= the k-th highest                      ties at each cut stay
    top-p   of those, the highest whose w reach p of their sum
    min-p   of those, y >= log(min_p)

Nothing is sorted, and the result is one limit for each row. Scores are fp32 numbers, whose bits in
a suitable order are 32-bit integers, their ranks; eight passes over the row, each comparing with 15
pivots, find the rank at which the count reaches k, or the mass p, exactly. Sums are in fixed trees
over chunks of 4096 scores, so a row's bits depend on the row alone, and grow with the rank
whatever is rounded.

`kernel.py` is Triton; `reference.py` sorts. `runtime/engine/sampling/logits.py` has the same steps
for one row on a CPU, in fp64, and says where they come from.
"""
