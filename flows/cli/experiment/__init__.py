"""Commands that plan, run, measure, compare and show: `commands` is what is typed."""
