//! Tests every scenario against a correct server and a deliberately broken server.

mod api;
mod broadcast;
mod compare;
mod connections;
mod drain;
mod echo;
mod harness;
mod pinned;
mod push;
mod relay;
mod storm;
mod swap;
