"""How it is done: pure functions on arrays, frames and paths, and the one artifact store. Knows nothing of Prefect."""
