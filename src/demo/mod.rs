//! What the `demo` command needs beside the server: toy stream origins to probe, kill and revive.

pub mod origin;
