//! TLS in the simulated world: a server of lodger's, and clients by rustls whose records the test carries, cuts, changes and
//! withholds.
#![cfg(feature = "tls-ring")]

#[path = "support/rig.rs"]
mod rig;
#[path = "support/script.rs"]
mod script;

#[path = "tls/authority.rs"]
mod authority;
#[path = "tls/forger.rs"]
mod forger;
#[path = "tls/town.rs"]
mod town;

#[path = "tls/campaign.rs"]
mod campaign;
#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/corners.rs"]
mod corners;
#[path = "tls/doors.rs"]
mod doors;
#[path = "tls/ends.rs"]
mod ends;
#[path = "tls/failures.rs"]
mod failures;
#[path = "tls/names.rs"]
mod names;
#[path = "tls/records.rs"]
mod records;
#[path = "tls/turns.rs"]
mod turns;
