"""A node or several and a gateway as real processes on free loopback ports, for the demo, the benchmarks and the tests."""
