//! The HTTP push API: internal systems push messages by HTTP, on a port of its own.

mod tokens;
