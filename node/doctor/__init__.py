"""`limner-node doctor`: looks at everything that a node stands on, and says what to do. Changes nothing."""
