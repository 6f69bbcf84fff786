"""Step 11, experiments side by side: comparison, significance, rankings, history.

In: finished runs. Out: tables and the record that `report` draws. Read `comparison` first.
"""
