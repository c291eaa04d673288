"""The commands of the command line. TensorFlow is imported inside them, so that `--help` is instant."""
