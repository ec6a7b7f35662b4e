"""MEND: a trained network that turns the fine-tuning gradient of an edit into a change that stays local."""
