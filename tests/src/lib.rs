//! What tests and benches of Loopwright share: the real binary as a child process, strict mock
//! providers, a proxy that cuts, and the parts of the benches.
//!
//! Boundary: nothing here is linked into the server; everything reaches it over gRPC and HTTP.

pub mod bench;
pub mod collector;
pub mod cuts;
pub mod install;
pub mod kit;
pub mod mock_model;
pub mod polyglot;
pub mod probe;
pub mod proxy;
pub mod rig;
pub mod scene;
pub mod sidecar;
