"""`limner-gateway doctor`: looks at everything that a gateway stands on, and says what to do. Changes nothing."""
