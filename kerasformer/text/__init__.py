"""Strings to token ids and back: offline on many threads, and in the graph for serving, equal id for id."""
