//! The HTTP push API.

#![cfg_attr(not(test), expect(dead_code, reason = "handlers follow"))]

pub(super) mod idempotency;
