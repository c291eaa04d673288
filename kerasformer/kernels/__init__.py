"""What this machine computes fast."""
