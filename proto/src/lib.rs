//! The contract on the wire: package `loopwright.v1` as Rust types, client and server stubs.
//!
//! Everything here is generated from `loopwright/v1/*.proto`, whose comments are the reference. The crate
//! knows no other crate of the project; what a message means to the server is decided in its `convert`
//! module. Each type reads and writes canonical proto3 JSON through serde; unknown fields and unknown
//! enum values are skipped on reading.

/// `google.protobuf` types (`Timestamp`, `Duration`, `Any`) as the messages use them.
pub use pbjson_types as well_known;

/// Package `loopwright.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("loopwright.v1");
    include!(concat!(env!("OUT_DIR"), "/loopwright.v1.serde.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of the package and its imports, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/loopwright.v1.descriptor.bin"));

#[cfg(test)]
mod tests;
