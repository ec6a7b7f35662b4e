"""The demonstration bundle: facts as of 2018, the programs that make atlas-2018 from them, and its weights."""

from pathlib import Path

BUNDLE = Path(__file__).parent / "atlas-2018"
"""The folder of the bundled base model, in Hugging Face's layout."""

SCOPE_CLASSIFIER = Path(__file__).parent / "scope" / "similarity.json"
"""The calibration of the similarity scope classifier."""
