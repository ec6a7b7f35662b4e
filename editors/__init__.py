"""The algorithms of model editing: torch and transformers, no HTTP, no SQL, no environment, no globals."""
