//! Loopwright.
