"""Coreset selection: which rows of a feature matrix stand for the rest."""
