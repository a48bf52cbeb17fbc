"""A gRPC server made for large requests: few of them a second, each some hundred kilobytes.

`server` (methods, threads) stands on `calls` (what gRPC says over a stream), that on `http2` (one
connection, without sockets), and `sockets` moves the bytes. gRPC's own server for Python hands a
request from thread to thread and copies it on the way, which costs as much as a small net computes;
here a thread that has read a request answers it, and a request is read to where it stays.

The parts of gRPC that classifiers use are here: calls of every shape, deadlines, cancellation,
compressed requests, TLS, health and reflection; not: compressed answers, initial metadata.
"""

from striate.serve.grpc_server.calls import Call as GrpcCall
from striate.serve.grpc_server.server import GrpcServer, Limits

__all__ = ["GrpcCall", "GrpcServer", "Limits"]
