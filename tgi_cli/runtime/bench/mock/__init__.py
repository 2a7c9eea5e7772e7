"""`tgi bench mock`: a server without a model, whose every write is planned and put down.

    connection ─► server ─┬─► asking (what a body asks for) ─► script (what is written, and when)
                          ├─► slots, clock, faults                 └─► dialects (one per protocol)
                          └─► write_log (the truth, for whoever checks a result)

It shares no code with the client that measures it. Spec: bench.md section 16.
"""
