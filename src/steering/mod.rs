//! What a region costs a place, and the order of regions that follows. Knows no DNS.
