"""Ids -> ids: greedy decoding, sampling and beam search over a cached step, and the texts around them."""
