"""From a model's name to its checked files on this disk.

    resolve ─► choose ─► lock ─► disk ─► fetch ─► verify ─► place ─► convert

`run.obtain` is the whole walk; `tgi download` and `tgi serve` both take it. The hub's client does
the requests and its standard cache holds the files. Spec: health-download.md.
"""
