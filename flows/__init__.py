"""Prefect flows and the command line: which task feeds which."""
