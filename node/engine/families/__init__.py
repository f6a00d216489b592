"""Model families: adapters over stock diffusers components. Only the worker imports these."""
