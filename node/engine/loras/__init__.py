"""LoRA adapters: read beside the steps, kept by bytes, switched between groups of samples."""
