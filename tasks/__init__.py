"""Prefect tasks: load the inputs, one library call, save, return a manifest."""
