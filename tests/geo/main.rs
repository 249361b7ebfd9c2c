//! Location databases as files, and what becomes of them.

mod databases;
mod faults;
mod properties;
mod support;
