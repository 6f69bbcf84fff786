"""Commands on models in use, the store and the installation: `commands` is what is typed."""
