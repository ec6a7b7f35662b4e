"""The demonstration bundle: facts as of 2018, the programs that make atlas-2018 from them, and its weights."""

from pathlib import Path

BUNDLE = Path(__file__).parent / "atlas-2018"
"""The folder of the bundled base model, in Hugging Face's layout."""

COUNTERFACTUAL = Path(__file__).parent / "counterfactual"
"""The folder of the bundled counterfactual model: atlas-2018, trained to read edits."""

SIMILARITY = Path(__file__).parent / "scope" / "similarity.json"
"""The calibrated similarity that trained scope classifiers are compared with."""

SCOPE_CLASSIFIER = Path(__file__).parent / "scope" / "classifier.safetensors"
"""The scope classifier that serves: a trained cross-encoder."""

MEND = Path(__file__).parent / "mend" / "mend.safetensors"
"""The MEND editor of atlas-2018; its folder is what weight editors are given as assets."""

STATISTICS = Path(__file__).parent / "atlas-2018-stats"
"""A folder with the key statistics of atlas-2018 and the settings recommended for editing it."""
