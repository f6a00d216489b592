"""The commands of `limner-node`, a module each, loaded when asked for."""
