"""GetOrchestrator and Ping over gRPC, one kept connection per orchestrator.

As in Livepeer, certificates are not verified: what an orchestrator is paid and trusted for hangs on its
address and its work. `http://` means HTTP/2 in clear text.
"""

import asyncio
import ssl
from typing import Final, cast
from urllib.parse import urlsplit

from grpclib.client import Channel, Handler
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from typing_extensions import override

from gateway.orchestrators.answers import (
    CallRefused,
    OrchestratorFailed,
    OrchestratorUnreachable,
    printable,
)
from gateway.orchestrators.connecting import Connector, linked_account, no_links
from gateway.orchestrators.reach import MayBePrivate, anything, check_reached
from network.errors import WireError
from network.units import Address
from network.wire.unary import BytesCodec, unary

_DEFAULT_PORT: Final = 8935
_LONGEST_REASON: Final = 300
#: The largest frame that we let peers send, its head among it (RFC 9113, 4.2).
_LARGEST_FRAME: Final = 16_384 + 9


class _Protocol(H2Protocol):  # type: ignore[misc]  # grpclib is untyped
    """h2 looks at a frame's length when all of it is there, which may be 16 MiB for each peer."""

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if len(self.connection._connection.incoming_buffer._data) > _LARGEST_FRAME:  # noqa: SLF001
            self.processor.close("a frame is larger than was agreed")


class _BoundedChannel(Channel):  # type: ignore[misc]  # grpclib is untyped
    def _protocol_factory(self) -> H2Protocol:
        return _Protocol(Handler(), self._config, self._h2_config)


class _Channel(_BoundedChannel):
    """One that looks at where it leads before anything is asked there."""

    may_be_private: MayBePrivate = staticmethod(anything)

    async def _create_connection(self) -> H2Protocol:
        protocol = await super()._create_connection()
        transport = protocol.connection._transport  # noqa: SLF001  grpclib has no other way to it
        try:
            check_reached(self._host, transport, self.may_be_private)
        except OrchestratorUnreachable:
            transport.abort()
            raise
        return protocol


class _LinkedChannel(_BoundedChannel):
    """A channel over a link, for which grpclib has no other way in than its own hook."""

    def __init__(self, account: Address, connect: Connector) -> None:
        super().__init__(account.hex(), codec=BytesCodec())
        self._account = account
        self._connect = connect

    async def _create_connection(self) -> H2Protocol:
        _, protocol = self._connect(self._account, self._protocol_factory)
        return cast("H2Protocol", protocol)


class Information:
    """The channels to all orchestrators. Close it when done."""

    def __init__(
        self,
        tls: ssl.SSLContext,
        call_timeout: float,
        may_be_private: MayBePrivate = anything,
        connect: Connector = no_links,
    ) -> None:
        """`connect` leads to orchestrators that cannot be called."""
        self._may_be_private = may_be_private
        self._tls = tls
        self._connect = connect
        self._call_timeout = call_timeout
        self._channels: dict[str, Channel] = {}

    async def call(self, uri: str, method: str, message: bytes) -> bytes:
        """One unary call of service `net.Orchestrator`.

        Raises CallRefused for a gRPC error, OrchestratorUnreachable without a connection,
        OrchestratorFailed for anything else that is not one whole reply within the call's time.
        """
        channel = self._channel(uri)
        try:
            async with asyncio.timeout(self._call_timeout):
                return await unary(channel, f"/net.Orchestrator/{method}", message)
        except OrchestratorUnreachable:
            self._drop(uri)
            raise
        except TimeoutError:
            # A connection that swallowed a call may swallow the next ones too.
            self._drop(uri)
            raise OrchestratorFailed(
                f"no answer to {method} within {self._call_timeout:g} s"
            ) from None
        except GRPCError as error:
            reason = printable(error.message or error.status.name, _LONGEST_REASON)
            raise CallRefused(f"{method} was refused: {reason}") from None
        except OSError as error:
            self._drop(uri)
            raise OrchestratorUnreachable(f"no connection: {error.strerror or error}") from None
        except StreamTerminatedError as error:
            self._drop(uri)
            raise OrchestratorUnreachable(f"the connection broke: {error}") from None
        except (ProtocolError, WireError, AssertionError, NotImplementedError) as error:
            # grpclib asserts where a reply is cut short, and implements no compression.
            self._drop(uri)
            raise OrchestratorFailed(f"{method} was answered by no gRPC reply: {error}") from None

    def close(self) -> None:
        for uri in list(self._channels):
            self._drop(uri)

    def _channel(self, uri: str) -> Channel:
        channel = self._channels.get(uri)
        if channel is None:
            channel = self._channels[uri] = self._new_channel(uri)
        return channel

    def _new_channel(self, uri: str) -> Channel:
        account = linked_account(uri)
        if account is not None:
            return _LinkedChannel(account, self._connect)
        parts = urlsplit(uri)
        channel = _Channel(
            parts.hostname,
            parts.port or _DEFAULT_PORT,
            codec=BytesCodec(),
            ssl=self._tls if parts.scheme == "https" else None,
        )
        channel.may_be_private = self._may_be_private
        return channel

    def _drop(self, uri: str) -> None:
        channel = self._channels.pop(uri, None)
        if channel is not None:
            channel.close()


def grpc_tls() -> ssl.SSLContext:
    """A client context that verifies nobody and speaks HTTP/2."""
    context = unverified_tls()
    context.set_alpn_protocols(["h2"])
    return context


def unverified_tls() -> ssl.SSLContext:
    # Not create_default_context: it would load the system's authorities only to ignore them.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
