"""One function for each thing a caller can ask for. Knows the domain and its ports, nothing of HTTP, SQL or models."""
