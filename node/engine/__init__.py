"""The engine: turns image jobs into PNG bytes in one supervised worker process per device."""
