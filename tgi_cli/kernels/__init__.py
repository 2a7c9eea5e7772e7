"""Operations on tensors, each in a folder of its own: a public function, and an obvious reference.

Kernels import nothing of ours. Activations are fp32 on the CPU; shapes use T for the tokens of a
step.
"""
