//! Every scenario against a correct and a deliberately broken server.

mod connections;
mod echo;
mod harness;
mod push;
mod relay;
mod swap;
