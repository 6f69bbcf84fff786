"""Commands on data sets: `commands` is what is typed, `datasets` what is done."""
