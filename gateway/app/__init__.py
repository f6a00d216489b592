"""The composition root of `limner-gateway run`. Nothing else reads settings."""

from gateway.app.gateway import Gateway, open_gateway, probe_orchestrators

__all__ = ["Gateway", "open_gateway", "probe_orchestrators"]
