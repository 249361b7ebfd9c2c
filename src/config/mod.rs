//! Files as written become checked settings.
//!
//! ```text
//! zones/*.toml ─ load ─► zone_file ─► check, region, stream, from, records ─► rules, aliases ─► settings::Zone
//! meridian.toml ─────────► node ──────► settings of the node, shared regions and check
//! ```
//!
//! [`settings`] holds the values in use: every default applied, every reference resolved, every rule of the zone
//! file obeyed. Whatever breaks a rule is a [`Diagnostic`], and one run reports them all.

pub mod admin;
pub mod diagnostic;
pub mod geoip;
pub mod load;
mod load_source;
pub mod names;
pub mod node;
pub mod rtt;
pub mod scale;
pub mod settings;

mod aliases;
mod capacity;
mod check;
mod event;
mod from;
mod headroom;
mod heartbeat;
pub mod money;
mod records;
mod region;
mod rules;
mod stream;
mod syntax;
mod tree;
pub(crate) mod units;
mod zone_file;

pub use capacity::{NoCapacity, capacity_of, is_capacity};
pub use diagnostic::{At, Diagnostic, Severity};
pub use geoip::load_database;
pub use headroom::losses;
pub use load::{Loaded, geo_warnings, load_zones};
pub use node::load_node;
pub(crate) use region::{NAME_RULE, is_name};
pub use tree::Placed;
pub(crate) use tree::nearest;
pub use zone_file::{Shared, ZoneFile, read as read_zone};
