"""The steps that experiments are made of; `run` is what they share."""
