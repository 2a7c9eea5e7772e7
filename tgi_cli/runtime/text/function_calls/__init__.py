"""Function calls in the text that a model writes, read as the text comes.

`wrapped.py` reads TGI's own form, which a grammar holds the model to. The others read what models
write by themselves; which of them a model was trained on, its chat template tells.
"""
