"""Step 5 at the server: uploads become memory banks. It sees nothing else.

In: accepted uploads. Out: the rows of each bank and whose they are. Read `aggregation` first.
"""
