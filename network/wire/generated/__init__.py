"""Written by scripts/generate_protobuf; never edited."""
