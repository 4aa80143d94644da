"""What stood near what, without a model: how it is counted, mixed with probabilities, and chosen."""
