"""The HTTP API of Livepeer's ai-runner, so that go-livepeer plugs the engine in as a container.

A program of its own beside the node: it has no account, no prices and no chain. Who is paid for
its images, and what, is the business of the orchestrator that calls it.
"""
