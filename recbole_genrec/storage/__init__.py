"""What is written to disk and read back: atomic files, artefacts, checkpoints, digests."""
