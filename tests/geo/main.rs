//! Location databases as files, and what becomes of them.

mod compacted;
mod databases;
mod faults;
mod properties;
mod support;
