//! Every scenario against a correct and a deliberately broken server.

mod broadcast;
mod compare;
mod connections;
mod echo;
mod harness;
mod pinned;
mod push;
mod relay;
mod storm;
mod swap;
