"""`tgi bench`: put load on an endpoint that generates text; say with honest numbers how it does.

    options ─► stages (plan of absolute send times, inputs) ─► workers (one process each)
        ─► records (stamps of every request) ─► measures ─► result ─► terminal, HTML, CSV, HDR

A client: it never imports the router or the engine. Latency counts from the planned send time,
tokens are counted and not events, and the program measures itself. Spec: bench.md.
"""
