"""The safety checkers there are, each behind `node.engine.safety.SafetyChecker`."""
