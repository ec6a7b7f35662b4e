"""What the weight editors share: tracing activations, tokens and targets, keys and their covariance."""
