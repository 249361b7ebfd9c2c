//! Files as written become checked settings.
//!
//! [`settings`] holds the values in use: every default applied, every reference resolved, every rule of the zone
//! file obeyed. Whatever breaks a rule is a [`Diagnostic`], and one run reports them all.

pub mod diagnostic;
pub mod settings;

pub use diagnostic::{At, Diagnostic, Severity};
