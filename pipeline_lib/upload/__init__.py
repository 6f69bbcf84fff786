"""Step 5, what crosses from a client to the server.

In: a client's rows. Out: bytes, and on the other side rows that were checked. Read `acceptance` first: nothing comes in
but through it.
"""
