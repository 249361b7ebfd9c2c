//! skeleton
pub mod asked;
pub mod scale;
pub mod sketch;
pub mod surge;
