"""What Errata is about, as frozen dataclasses and ports. Imports nothing heavy and nothing of the other rooms."""
